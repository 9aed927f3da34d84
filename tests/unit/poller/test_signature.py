"""minisign's signatures, against the real program and against what it once wrote."""

from __future__ import annotations

import base64
import contextlib
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devcluster.packages import Need, ensure
from model_poller.checks.signature import PublicKey, SecretKey, SignatureError
from model_poller.errors import InvalidSettingsError

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = b"hello"
# Written by minisign 0.11 for a key made for this test alone.
PUBLIC = "RWR4rQ0eoJiJpC5hsq4Y++VwOrAYyOXuEcSewOMHOw/xuhi/xve9+2mA"
SECRET = b"""\
untrusted comment: minisign encrypted secret key
RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAeK0NHqCYiaSDGDqV+l8i8vOEGeSZ\
3bF+IT8cYF2xmvliQMpqwOJryy5hsq4Y++VwOrAYyOXuEcSewOMHOw/xuhi/xve9+2mAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\
AAAAAAA=
"""
HASHED = b"""\
untrusted comment: signature from minisign secret key
RUR4rQ0eoJiJpMHhUNU7sDyJOX+fJUICMXSJp9/ywWCjM7nB/75Zf8mMc/FKqay/JnpJcTk0B/1F0SIG5zr4sDV4sw1fvSDP5ww=
trusted comment: timestamp:1795430097\tfile:m\thashed
hYHNglHhmRmLFJxitgmlVcw3zHgo5TjN+p18qgRLxwqvdVqqtrPxSnGakggubyJkLa0/4SNir9xhLZjfbeXvCQ==
"""
LEGACY = b"""\
untrusted comment: signature from minisign secret key
RWR4rQ0eoJiJpOT3xl4fgUwAm15+k7aPaPXvcmuIoUd6xKZXMrFOAx3R+kVkrsku3ZI4fRw6+7yiFdKKi7grwtiI7b1tCdhUzAU=
trusted comment: my comment
a5cHnSMrAIAiOGzxmf8MDIcr/iQdNGI5+u3W0ikRS7NKu6UgpeXQr1LdnKQSn6ldXXLi2RofpdREE7LQkBoHDg==
"""
ENCRYPTED = b"""\
untrusted comment: minisign encrypted secret key
RWRTY0Iy2CkYwSEyt4drOn2AD0jOAuasWLv0Dkqv5Pi6UGSKQQQAAAACAAAAAAAAAEAAAAAAU0nwf6Oc145DgqNC9MXi61a1JQfka5mD\
bkcqo9JHXGsuqYHXosVU3MtJlvMpC8vSP+cBL7/167H3QJcPolVh4/yL1QfBpwAsBN8sfX8mGcSAnUUUcT5CleReHF59MS6heo0WVfSD\
JeU=
"""


@pytest.mark.parametrize(
    ("signature", "comment"),
    [(HASHED, "timestamp:1795430097\tfile:m\thashed"), (LEGACY, "my comment")],
)
def test_what_minisign_signed_is_verified(signature: bytes, comment: str) -> None:
    assert PublicKey.parse(PUBLIC).verify(CONTENT, signature) == comment
    windows = signature.replace(b"\n", b"\r\n")
    assert PublicKey.parse(PUBLIC).verify(CONTENT, windows) == comment


@pytest.mark.parametrize("signature", [HASHED, LEGACY])
def test_another_file_is_refused(signature: bytes) -> None:
    with pytest.raises(SignatureError, match="does not fit the file"):
        PublicKey.parse(PUBLIC).verify(b"hellp", signature)


def test_a_changed_trusted_comment_is_refused() -> None:
    with pytest.raises(SignatureError, match="trusted comment was changed"):
        PublicKey.parse(PUBLIC).verify(CONTENT, HASHED.replace(b"file:m", b"file:n"))


def test_a_signature_of_one_kind_does_not_pass_for_the_other() -> None:
    line = HASHED.splitlines()[1]
    other = base64.b64encode(b"Ed" + base64.b64decode(line)[2:])
    with pytest.raises(SignatureError, match="does not fit the file"):
        PublicKey.parse(PUBLIC).verify(CONTENT, HASHED.replace(line, other))


def test_another_key_is_named(tmp_path: Path) -> None:
    key = PublicKey(b"\1" * 8, PublicKey.parse(PUBLIC).key)
    with pytest.raises(SignatureError, match="A48998A01E0DAD78, not with 0101010101010101"):
        key.verify(CONTENT, HASHED)


def test_a_public_key_is_taken_with_its_comment() -> None:
    whole = f"untrusted comment: minisign public key A48998A01E0DAD78\n{PUBLIC}\n"
    assert PublicKey.parse(whole) == PublicKey.parse(PUBLIC)


@pytest.mark.parametrize(
    "text", ["", "x", PUBLIC[:-4], f"{PUBLIC}AAAA", "A" * 56, "ä", "\0\n", "\udcff"]
)
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidSettingsError, match=r"second line of its \.pub file"):
        PublicKey.parse(text)


def test_a_secret_key_given_by_mistake_is_not_shown() -> None:
    for text in (SECRET.decode(), SECRET.decode().splitlines()[1]):
        with pytest.raises(InvalidSettingsError) as caught:
            PublicKey.parse(text)
        assert "RWQ" not in str(caught.value)


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        HASHED[:-10],
        HASHED + b"more\n",
        HASHED.replace(b"\ntrusted", b"\n\ntrusted"),
        HASHED.replace(b"RUR4", b"RUZ4"),
        b"\n".join(HASHED.splitlines()[:2]),
    ],
)
def test_what_is_no_signature_is_refused(signature: bytes) -> None:
    with pytest.raises(SignatureError):
        PublicKey.parse(PUBLIC).verify(CONTENT, signature)


@given(at=st.integers(0, len(HASHED) - 1), bits=st.integers(1, 255))
def test_a_signature_with_any_byte_changed_is_refused_unless_the_byte_says_nothing(
    at: int, bits: int
) -> None:
    changed = bytearray(HASHED)
    changed[at] ^= bits
    with contextlib.suppress(SignatureError):
        assert (
            PublicKey.parse(PUBLIC).verify(CONTENT, bytes(changed))
            == "timestamp:1795430097\tfile:m\thashed"
        )


@given(signature=st.binary(max_size=300), text=st.text(max_size=100))
def test_no_bytes_make_a_check_fail_otherwise(signature: bytes, text: str) -> None:
    with pytest.raises(SignatureError):
        PublicKey.parse(PUBLIC).verify(CONTENT, signature)
    with contextlib.suppress(InvalidSettingsError):
        PublicKey.parse(text)


def secret_key(tmp_path: Path, content: bytes = SECRET) -> SecretKey:
    path = tmp_path / "minisign.key"
    path.write_bytes(content)
    return SecretKey.load(path)


def test_what_is_signed_here_is_verified_here(tmp_path: Path) -> None:
    key = secret_key(tmp_path)
    signature = key.sign(CONTENT, "version:7")
    assert PublicKey.parse(PUBLIC).verify(CONTENT, signature) == "version:7"


def test_a_secret_key_is_not_shown(tmp_path: Path) -> None:
    key = secret_key(tmp_path)
    assert repr(key.seed) not in repr(key)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ENCRYPTED, "under a password; make one without, by minisign -G -W"),
        (b"", "is no secret key of minisign"),
        (PUBLIC.encode(), "is no secret key of minisign"),
        (SECRET.replace(b"eK0NHqCYiaSD", b"eK0NHqCYiaSE"), "is damaged"),
    ],
)
def test_a_secret_key_that_can_not_be_used_is_refused_without_showing_it(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(InvalidSettingsError, match=message) as caught:
        secret_key(tmp_path, content)
    assert "RWQ" not in str(caught.value)


@pytest.fixture(scope="module")
def minisign() -> str:
    """The real program, where the machine has it or can get it from Debian."""
    ensure((Need("minisign", "minisign"),))
    found = shutil.which("minisign")
    if not found:
        pytest.skip("there is no minisign on this machine, and it can't be installed")
    return found


def test_minisign_verifies_what_is_signed_here(tmp_path: Path, minisign: str) -> None:
    signed, signature = tmp_path / "SHA256SUMS", tmp_path / "SHA256SUMS.minisig"
    signed.write_bytes(CONTENT)
    signature.write_bytes(secret_key(tmp_path).sign(CONTENT, "version:7"))
    done = subprocess.run(
        [minisign, "-V", "-H", "-P", PUBLIC, "-m", signed], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Trusted comment: version:7" in done.stdout


@pytest.mark.parametrize("mode", [["-H"], ["-l"]])
def test_what_minisign_signs_with_a_new_key_is_verified(
    tmp_path: Path, minisign: str, mode: list[str]
) -> None:
    def run(*arguments: str | Path) -> None:
        subprocess.run([minisign, *arguments], check=True, capture_output=True)

    signed = tmp_path / "SHA256SUMS"
    signed.write_bytes(CONTENT)
    run("-G", "-W", "-p", tmp_path / "key.pub", "-s", tmp_path / "key")
    run("-S", *mode, "-s", tmp_path / "key", "-m", signed)
    key = PublicKey.parse((tmp_path / "key.pub").read_text())
    signature = (tmp_path / "SHA256SUMS.minisig").read_bytes()
    assert "file:SHA256SUMS" in key.verify(CONTENT, signature)
    again = SecretKey.load(tmp_path / "key").sign(CONTENT, "mine")
    assert key.verify(CONTENT, again) == "mine"
