"""SHA256SUMS and its signature."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model_poller.checks import manifest
from model_poller.checks.signature import PublicKey, SecretKey
from model_poller.errors import BrokenVersionError, IncompleteVersionError, StoppedError
from model_poller.status import VersionReason
from tests.unit.poller.doubles import model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SECRET = SecretKey(b"8 bytes!", bytes(range(32)))
PUBLIC = PublicKey(
    SECRET.key_id,
    Ed25519PrivateKey.from_private_bytes(SECRET.seed).public_key().public_bytes_raw(),
)
FILES = model(b"w" * 3_000_000, shards=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A version that lies on disk."""
    for name, content in FILES.items():
        path = tmp_path / "7" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "7"


def check(folder: Path, **changed: Any) -> bool:
    given: dict[str, Any] = {
        "version": 7,
        "required": False,
        "key": None,
        "marker": None,
        "may_grow": True,
        "stopped": lambda: False,
    }
    return manifest.check(folder, **{**given, **changed})


def broken(folder: Path, **changed: Any) -> tuple[VersionReason, str]:
    with pytest.raises(BrokenVersionError) as caught:
        check(folder, **changed)
    return caught.value.reason, str(caught.value)


def incomplete(folder: Path, **changed: Any) -> tuple[VersionReason, str]:
    with pytest.raises(IncompleteVersionError) as caught:
        check(folder, **changed)
    # An archive is uploaded whole, so what it lacks is missing for good.
    assert broken(folder, **changed, may_grow=False) == (caught.value.reason, str(caught.value))
    return caught.value.reason, str(caught.value)


def test_what_is_written_is_what_sha256sum_would_say(folder: Path) -> None:
    manifest.write(folder)
    lines = [f"{hashlib.sha256(body).hexdigest()}  {name}\n" for name, body in FILES.items()]
    assert (folder / "SHA256SUMS").read_text() == "".join(sorted(lines, key=lambda line: line[66:]))
    assert check(folder, required=True)


def test_sha256sum_itself_agrees(folder: Path) -> None:
    (folder / "odd\nname\\").write_bytes(b"odd")
    manifest.write(folder)
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True)


@pytest.mark.parametrize("mode", ["--text", "--binary"])
@pytest.mark.parametrize("start", ["", "./"])
def test_a_manifest_of_sha256sum_is_taken(folder: Path, mode: str, start: str) -> None:
    (folder / "odd\nname\\").write_bytes(b"odd")
    names = [start + p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    told = subprocess.run(
        ["sha256sum", mode, *names], cwd=folder, check=True, capture_output=True
    ).stdout
    (folder / "SHA256SUMS").write_bytes(b"# made by hand\n" + told)
    assert check(folder, required=True)
    (folder / "SHA256SUMS").write_bytes(told.replace(b"\n", b"\r\n"))
    assert check(folder, required=True)


def test_a_version_without_one_passes_unless_it_is_required(folder: Path) -> None:
    assert not check(folder)
    reason, message = incomplete(folder, required=True)
    assert reason is VersionReason.MISSING_MANIFEST
    assert "SHA256SUMS is missing" in message


def test_a_manifest_that_is_not_required_is_checked_all_the_same(folder: Path) -> None:
    manifest.write(folder)
    (folder / "saved_model.pb").write_bytes(b"another")
    reason, message = broken(folder)
    assert reason is VersionReason.MANIFEST_MISMATCH
    assert "'saved_model.pb' is not what SHA256SUMS says" in message


def test_a_missing_file_may_still_come(folder: Path) -> None:
    manifest.write(folder)
    (folder / "variables/variables.index").unlink()
    reason, message = incomplete(folder)
    assert reason is VersionReason.MANIFEST_MISMATCH
    assert "'variables/variables.index' is missing, and SHA256SUMS lists it" in message


def test_a_file_that_is_not_listed_is_refused(folder: Path) -> None:
    manifest.write(folder)
    (folder / "variables" / "extra").write_bytes(b"")
    assert "'variables/extra' is not in SHA256SUMS" in broken(folder)[1]


def test_many_wrong_files_are_counted(folder: Path) -> None:
    manifest.write(folder)
    for number in range(5):
        (folder / f"extra{number}").touch()
    assert "'extra0', 'extra1', 'extra2' and 2 more are not in" in broken(folder)[1]


def test_the_marker_that_ends_an_upload_needs_not_be_listed_but_may_be(folder: Path) -> None:
    manifest.write(folder)
    (folder / "_SUCCESS").touch()
    assert check(folder, marker="_SUCCESS")
    assert "'_SUCCESS' is not in SHA256SUMS" in broken(folder)[1]
    manifest.write(folder)
    assert check(folder, marker="_SUCCESS")
    manifest.write(folder, marker="_SUCCESS")
    assert "_SUCCESS" not in (folder / "SHA256SUMS").read_text()


def test_a_link_to_a_folder_hides_nothing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    manifest.write(folder)
    (folder / "assets").symlink_to(tmp_path / "outside")
    assert "'assets' is not in SHA256SUMS" in broken(folder)[1]
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  assets\n")
    for name in FILES:
        (folder / name).unlink()
    assert "'assets' is not a plain file" in broken(folder)[1]


def test_a_named_pipe_is_refused_and_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "SHA256SUMS").write_text(
        "".join(f"{'0' * 64}  {name}\n" for name in [*FILES, "pipe"])
    )
    assert "'pipe' is not a plain file" in broken(folder)[1]


def test_a_pipe_is_no_manifest(folder: Path) -> None:
    os.mkfifo(folder / "SHA256SUMS")
    assert "SHA256SUMS is missing" in incomplete(folder, required=True)[1]


def test_checking_stops_when_it_is_told(folder: Path) -> None:
    manifest.write(folder)
    with pytest.raises(StoppedError):
        check(folder, stopped=lambda: True)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"# nothing\n",
        b"0" * 64,
        b"0" * 63 + b"  saved_model.pb\n",
        b"0" * 64 + b" saved_model.pb\n",
        b"g" * 64 + b"  saved_model.pb\n",
        b"0" * 64 + b"  a\n\n" + b"0" * 64 + b"  b\n",
        b"0" * 64 + b"  a\n" + b"0" * 64 + b" *a\n",
        b"0" * 64 + b"  a\n" + b"0" * 64 + b"  ./a\n",
        b"SHA256 (a) = " + b"0" * 64 + b"\n",
    ],
)
def test_a_manifest_that_can_not_be_read_is_refused(folder: Path, content: bytes) -> None:
    (folder / "SHA256SUMS").write_bytes(content)
    reason, message = incomplete(folder)
    assert reason is VersionReason.MANIFEST_MISMATCH
    assert "SHA256SUMS can't be read" in message


def test_a_manifest_of_unlikely_size_is_not_read(folder: Path) -> None:
    with (folder / "SHA256SUMS").open("wb") as file:
        file.truncate(33 << 20)
    assert "SHA256SUMS is larger than" in broken(folder)[1]


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../7/saved_model.pb", "variables/../saved_model.pb"]
)
def test_a_name_in_a_manifest_never_leads_out_of_the_folder(folder: Path, name: str) -> None:
    manifest.write(folder)
    with (folder / "SHA256SUMS").open("a") as file:
        file.write(f"{'0' * 64}  {name}\n")
    assert f"{name!r} is missing" in incomplete(folder)[1]


def test_a_signed_manifest_passes(folder: Path) -> None:
    manifest.write(folder)
    manifest.sign(folder, SECRET, 7)
    assert check(folder, key=PUBLIC)
    assert check(folder)


def test_with_a_key_an_unsigned_version_is_not_taken(folder: Path) -> None:
    assert incomplete(folder, key=PUBLIC)[0] is VersionReason.MISSING_MANIFEST
    manifest.write(folder)
    reason, message = incomplete(folder, key=PUBLIC)
    assert reason is VersionReason.MISSING_MANIFEST
    assert "SHA256SUMS.minisig is missing" in message


def test_a_manifest_that_was_changed_after_it_was_signed_is_refused(folder: Path) -> None:
    manifest.write(folder)
    manifest.sign(folder, SECRET, 7)
    (folder / "saved_model.pb").write_bytes(b"hostile")
    manifest.write(folder)
    reason, message = broken(folder, key=PUBLIC)
    assert reason is VersionReason.SIGNATURE_MISMATCH
    assert "SHA256SUMS.minisig is refused: it does not fit the file" in message


def test_a_signature_with_another_key_is_refused(folder: Path) -> None:
    manifest.write(folder)
    manifest.sign(folder, SecretKey(SECRET.key_id, b"x" * 32), 7)
    assert broken(folder, key=PUBLIC)[0] is VersionReason.SIGNATURE_MISMATCH


def test_a_signed_version_is_not_taken_under_another_number(folder: Path) -> None:
    manifest.write(folder)
    manifest.sign(folder, SECRET, 7)
    reason, message = broken(folder, key=PUBLIC, version=70)
    assert reason is VersionReason.SIGNATURE_MISMATCH
    assert "was made for version 7, not for 70" in message


@pytest.mark.parametrize("comment", ["made by hand", "version:007", "my version:9", ""])
def test_a_comment_that_tells_no_other_version_binds_nothing(folder: Path, comment: str) -> None:
    content = manifest.write(folder).read_bytes()
    (folder / "SHA256SUMS.minisig").write_bytes(SECRET.sign(content, comment))
    assert check(folder, key=PUBLIC)


def fuzzed(tmp_path_factory: pytest.TempPathFactory, act: Callable[[Path], bool]) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "a").write_bytes(b"a")
    with contextlib.suppress(BrokenVersionError, IncompleteVersionError):
        if act(folder):
            listed = manifest.parse((folder / "SHA256SUMS").read_bytes())
            assert listed == {"a": hashlib.sha256(b"a").hexdigest()}


A_LINE = hashlib.sha256(b"a").hexdigest().encode() + b"  a\n"


@given(content=st.binary(max_size=200))
@example(content=A_LINE)
@example(content=b"\\" + A_LINE)
def test_no_bytes_make_a_check_fail_otherwise(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    def act(folder: Path) -> bool:
        (folder / "SHA256SUMS").write_bytes(content)
        return check(folder)

    fuzzed(tmp_path_factory, act)


@given(at=st.integers(0, len(A_LINE) - 1), byte=st.integers(0, 255))
def test_a_manifest_with_any_byte_changed_is_refused_or_says_the_same(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: int
) -> None:
    def act(folder: Path) -> bool:
        (folder / "SHA256SUMS").write_bytes(A_LINE[:at] + bytes([byte]) + A_LINE[at + 1 :])
        return check(folder)

    fuzzed(tmp_path_factory, act)
