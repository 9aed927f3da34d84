"""What a version has to prove on its way to the volume, in whichever form it is stored."""

from __future__ import annotations

import gzip
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zstandard

from model_poller.bring import Bringer, Demands
from model_poller.checks import manifest
from model_poller.checks.signature import PublicKey, SecretKey
from model_poller.errors import (
    BrokenVersionError,
    IncompleteVersionError,
    PollerError,
    WarmupUnavailableError,
)
from model_poller.model_server.warmup import WarmupRequests
from model_poller.status import VersionReason
from model_poller.stores.local import LocalSource
from model_poller.stores.opening import SourceSettings
from model_poller.stores.uri import parse_uri
from model_poller.versions import discover
from model_poller.volume.store import Store
from tests.unit.poller.doubles import MemorySource, below, model, tarred, zipped
from tests.unit.poller.test_warmup import GOOD, PLACE

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = SecretKey(b"key 1234", bytes(range(32)))
FORMS: dict[str, Callable[[dict[str, bytes]], dict[str, bytes]]] = {
    "folder": lambda files: below("7", files),
    "zip": lambda files: {"7.zip": zipped(below("0007", files))},
    "tar": lambda files: {"7.tar": tarred(files, "w")},
    "tar.gz": lambda files: {"7.tar.gz": gzip.compress(tarred(below("7", files), "w"))},
    "tar.zst": lambda files: {"7.tzst": zstandard.compress(tarred(below("7", files), "w"))},
}
FOREIGN = {name: content for name, content in model(b"hostile").items() if ".data" in name}


def public_key() -> PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    own = Ed25519PrivateKey.from_private_bytes(SECRET.seed)
    return PublicKey(SECRET.key_id, own.public_key().public_bytes_raw())


def signed(files: dict[str, bytes], version: int = 7, model: str | None = None) -> dict[str, bytes]:
    """The files of a version, with a signed manifest."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        names = [manifest.write(folder), manifest.sign(folder, SECRET, version, model)]
        return {**files, **{path.name: path.read_bytes() for path in names}}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "imagenet", tmp_path)
    made.prepare()
    return made


def bring(
    files: dict[str, bytes], store: Store, demands: Demands, uri: str | None = None
) -> dict[str, bytes]:
    """Bring version 7 as it is stored; returns what lies on the volume then."""
    source = MemorySource()
    source.put_all(files)
    if uri:
        source.locations = (parse_uri(uri),)
    found = discover(source.list(), {})
    version = discover(source.list(), {n: v.fingerprint for n, v in found.items()})[7]
    kit = Bringer(source, store, demands)
    try:
        kit.bring(version, stopped=threading.Event(), progress=lambda _: None)
    except PollerError:
        assert store.scan().complete == set()
        raise
    folder = store.base.parent / ".retained" / "7"
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refused(
    files: dict[str, bytes], store: Store, demands: Demands
) -> BrokenVersionError | IncompleteVersionError:
    try:
        bring(files, store, demands)
    except (BrokenVersionError, IncompleteVersionError) as error:
        return error
    raise AssertionError("it was taken")


@pytest.mark.parametrize("form", FORMS)
def test_a_signed_version_is_taken(store: Store, form: str) -> None:
    files = signed(model())
    demands = Demands(manifest=True, public_key=public_key())
    assert bring(FORMS[form](files), store, demands) == files


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({**signed(model(b"genuine")), **FOREIGN}, VersionReason.MANIFEST_MISMATCH),
        ({**signed(model()), "assets/more": b"x"}, VersionReason.MANIFEST_MISMATCH),
        (signed(model(), version=6), VersionReason.SIGNATURE_MISMATCH),
        (
            {**signed(model()), "SHA256SUMS": signed(model(b"hostile"))["SHA256SUMS"]},
            VersionReason.SIGNATURE_MISMATCH,
        ),
    ],
)
def test_a_version_that_was_tampered_with_is_not(
    store: Store, form: str, files: dict[str, bytes], reason: VersionReason
) -> None:
    demands = Demands(manifest=True, public_key=public_key())
    error = refused(FORMS[form](files), store, demands)
    assert isinstance(error, BrokenVersionError)
    assert error.reason is reason


@pytest.mark.parametrize("form", FORMS)
def test_what_is_missing_may_come_only_into_a_folder(store: Store, form: str) -> None:
    kind = IncompleteVersionError if form == "folder" else BrokenVersionError
    error = refused(FORMS[form](model()), store, Demands(manifest=True))
    assert isinstance(error, kind)
    assert error.reason is VersionReason.MISSING_MANIFEST
    files = signed({**model(), "assets/words": b"a"})
    del files["assets/words"]
    error = refused(FORMS[form](files), store, Demands())
    assert isinstance(error, kind)
    assert error.reason is VersionReason.MANIFEST_MISMATCH


@pytest.mark.parametrize("form", FORMS)
def test_a_cut_shard_is_noticed_without_a_manifest(store: Store, form: str) -> None:
    files = model(b"weights" * 1000)
    name = "variables/variables.data-00000-of-00001"
    files[name] = files[name][:-1]
    assert refused(FORMS[form](files), store, Demands()).reason is VersionReason.MISSING_VARIABLES


def test_the_marker_needs_no_line_in_the_manifest(store: Store) -> None:
    files = {**signed(model()), "_DONE": b""}
    assert bring(FORMS["folder"](files), store, Demands(manifest=True, marker="_DONE")) == files


@pytest.mark.parametrize("form", FORMS)
def test_warm_up_requests_come_beside_a_signed_manifest(
    tmp_path: Path, store: Store, form: str
) -> None:
    (tmp_path / "requests").write_bytes(GOOD)
    requests = WarmupRequests(tmp_path / "requests", SourceSettings())
    demands = Demands(manifest=True, public_key=public_key(), warmup=requests)
    files = signed(model())
    assert bring(FORMS[form](files), store, demands) == {**files, str(PLACE): GOOD}


@pytest.mark.parametrize("form", FORMS)
def test_a_version_waits_for_its_warm_up_requests(tmp_path: Path, store: Store, form: str) -> None:
    damaged = tmp_path / "requests"
    damaged.write_bytes(GOOD[:-1])
    demands = Demands(warmup=WarmupRequests(damaged, SourceSettings()))
    files = signed(model())
    # Once: gzip writes the time into an archive.
    stored = FORMS[form](files)
    with pytest.raises(WarmupUnavailableError):
        bring(stored, store, demands)
    damaged.write_bytes(GOOD)
    assert bring(stored, store, demands) == {**files, str(PLACE): GOOD}


@pytest.mark.parametrize(
    ("uri", "served_as"),
    [
        ("gs://models/resnet", ""),
        ("https://example.com/models/resnet/list.json", ""),
        ("gs://elsewhere/copy", "resnet"),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_a_signature_is_good_for_its_model(
    store: Store, form: str, uri: str, served_as: str
) -> None:
    files = signed(model(), model="resnet")
    demands = Demands(public_key=public_key(), model=served_as)
    assert bring(FORMS[form](files), store, demands, uri) == files


@pytest.mark.parametrize("form", FORMS)
def test_a_signed_version_is_not_taken_for_another_model(store: Store, form: str) -> None:
    demands = Demands(public_key=public_key(), model="bert-large")
    stored = FORMS[form](signed(model(), model="resnet"))
    with pytest.raises(
        BrokenVersionError, match="model resnet, not for bert or bert-large"
    ) as told:
        bring(stored, store, demands, "gs://models/bert")
    assert told.value.reason is VersionReason.SIGNATURE_MISMATCH


def test_a_model_of_any_name_can_be_signed_for(store: Store) -> None:
    files = signed(model(), model="größe\t%1\n")
    demands = Demands(public_key=public_key(), model="größe\t%1\n")
    assert bring(FORMS["folder"](files), store, demands) == files


@pytest.mark.parametrize("has_key", [False, True])
def test_a_signed_version_of_a_mounted_volume_is_copied_so_that_it_stays_as_it_was_checked(
    tmp_path: Path, store: Store, has_key: bool
) -> None:
    mount = tmp_path / "volume"
    files = signed(model())
    for name, content in files.items():
        (mount / "7" / name).parent.mkdir(parents=True, exist_ok=True)
        (mount / "7" / name).write_bytes(content)
    source = LocalSource(parse_uri("pvc://claim"), mount)
    found = discover(source.list(), {})
    version = discover(source.list(), {n: v.fingerprint for n, v in found.items()})[7]
    demands = Demands(public_key=public_key() if has_key else None)
    Bringer(source, store, demands).bring(
        version, stopped=threading.Event(), progress=lambda _: None
    )
    (mount / "7/saved_model.pb").write_bytes(b"hostile")
    kept = (tmp_path / ".retained/7/saved_model.pb").read_bytes()
    assert (kept == files["saved_model.pb"]) == has_key
