"""Versions from an export into a store: whole, once, and as a poller takes them."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from typing import IO, TYPE_CHECKING

import google_crc32c
import pytest

from model_poller.bring import Bringer, Demands
from model_poller.checks import manifest
from model_poller.checks.signature import PublicKey
from model_poller.errors import (
    BrokenVersionError,
    BucketNotFoundError,
    CorruptUploadError,
    UnreachableError,
    VersionExistsError,
)
from model_poller.publishing import export, packing, publish
from model_poller.publishing.main import main
from model_poller.publishing.publish import FOLDER, Choice, Publisher
from model_poller.stores import Entry, StoredObject, local_upload
from model_poller.stores.local_upload import LocalUploads
from model_poller.stores.opening import SourceSettings, open_source
from model_poller.stores.uri import Location, parse_uri
from model_poller.versions import discover
from model_poller.volume.store import Store
from tests.unit.poller.doubles import model
from tests.unit.poller.test_signature import ENCRYPTED, PUBLIC, SECRET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

FORMATS = [*packing.FORMATS, FOLDER]


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def read(folder: Path) -> dict[str, bytes]:
    folder = folder.resolve()
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    return write(tmp_path / "export", {**model(), "assets.extra/notes.txt": b"long " * 1000})


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """The folder of ``file://``."""
    (tmp_path / "bucket").mkdir()
    return tmp_path / "bucket"


def bring(bucket: Path, root: Path, demands: Demands, version: int = 1) -> dict[str, bytes]:
    """What a poller has on its disk when it has taken the version."""
    root.mkdir()
    source = open_source(SourceSettings(locations=(parse_uri(f"file://{bucket}"),)))
    store = Store(root / "model", root)
    store.prepare()
    settled: dict[int, str] = {}
    for _ in range(2):
        found = discover(source.list(), settled, marker=demands.marker, growing=source.growing)
        settled = {number: each.fingerprint for number, each in found.items()}
    assert found[version].incomplete is None
    Bringer(source, store, demands).bring(
        found[version], stopped=threading.Event(), progress=lambda _: None
    )
    return read(root / f".retained/{version}")


@pytest.mark.parametrize("form", FORMATS)
def test_a_poller_takes_what_was_published_with_its_manifest_and_signature(
    exported: Path, bucket: Path, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    before = read(exported)
    assert (
        main([str(exported), f"file://{bucket}", f"--format={form}", f"--sign-key={secret}"]) == 0
    )
    assert capsys.readouterr().out == "1\n"
    demands = Demands(manifest=True, public_key=PublicKey.parse(PUBLIC))
    taken = bring(bucket, tmp_path / "pod", demands)
    assert taken.keys() - before.keys() == {"SHA256SUMS", "SHA256SUMS.minisig"}
    assert before.items() <= taken.items()
    assert read(exported) == before


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("named", [None, "bert"])
def test_what_was_signed_for_one_model_is_not_taken_for_another(
    exported: Path, tmp_path: Path, form: str, named: str | None
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    resnet, bert = tmp_path / "resnet", tmp_path / "bert"
    more = [f"--sign-model={named}"] if named else []
    arguments = [f"--format={form}", f"--sign-key={secret}", *more]
    assert main([str(exported), f"file://{resnet}", *arguments]) == 0
    shutil.copytree(resnet, bert)
    demands = Demands(public_key=PublicKey.parse(PUBLIC))
    good, bad = (bert, resnet) if named else (resnet, bert)
    bring(good, tmp_path / "pod", demands)
    with pytest.raises(BrokenVersionError, match=f"model {good.name}, not for {bad.name}"):
        bring(bad, tmp_path / "other", demands)


def test_a_marker_is_stored_with_a_folder(exported: Path, bucket: Path, tmp_path: Path) -> None:
    arguments = ["--format=folder", "--marker=DONE"]
    assert main([str(exported), f"file://{bucket}", *arguments]) == 0
    taken = bring(bucket, tmp_path / "pod", Demands(manifest=True, marker="DONE"))
    assert taken["DONE"] == b""


def test_an_archive_is_the_same_whenever_the_same_files_are_packed(
    exported: Path, tmp_path: Path
) -> None:
    again = write(tmp_path / "again", dict(reversed(read(exported).items())))
    os.utime(again / "saved_model.pb", (1, 1))
    (again / "saved_model.pb").chmod(0o600)
    for form in packing.FORMATS:
        packing.pack(exported, tmp_path / f"a.{form}")
        packing.pack(again, tmp_path / f"b.{form}")
        assert (tmp_path / f"a.{form}").read_bytes() == (tmp_path / f"b.{form}").read_bytes()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("there", ["1.zip", "0001.tar.gz", "1/half"])
def test_a_version_that_is_there_in_any_form_is_left_as_it_is(
    exported: Path, bucket: Path, form: str, there: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(bucket, {there: b"other"})
    arguments = [str(exported), f"file://{bucket}", f"--format={form}", "--version=1"]
    assert main(arguments) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert f"version 1 is there already: file://{bucket}/{there.partition('/')[0]};" in err
    assert read(bucket) == {there: b"other"}


def test_a_version_below_what_is_there_is_published_and_that_is_told(
    exported: Path, bucket: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Two pipelines may number by other rules: by dates, and by seconds.
    write(bucket, {"20240101120000.zip": b""})
    assert main([str(exported), f"file://{bucket}", "--version=timestamp"]) == 0
    assert "is below 20240101120000, which is there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("there", "version"), [({}, 1), ({"5.zip": b"", "0012/x": b"", "readme": b""}, 13)]
)
def test_next_is_above_all_that_is_there(
    exported: Path,
    bucket: Path,
    there: dict[str, bytes],
    version: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(bucket, there)
    assert main([str(exported), f"file://{bucket}"]) == 0
    assert capsys.readouterr().out == f"{version}\n"
    assert (bucket / f"{version}.zip").exists()


def test_there_is_no_number_above_the_highest(
    exported: Path, bucket: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(bucket, {f"{2**63 - 1}.zip": b""})
    assert main([str(exported), f"file://{bucket}"]) == 2
    assert "no version above" in capsys.readouterr().err


def test_a_timestamp_is_a_version(exported: Path, bucket: Path) -> None:
    assert main([str(exported), f"file://{bucket}", "--version=timestamp"]) == 0
    (made,) = bucket.iterdir()
    assert int(made.name.removesuffix(".zip")) > 1_700_000_000


def test_json_tells_what_was_stored(
    exported: Path, bucket: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(exported), f"file://{bucket}", "-o", "json", "--version=7"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "version": 7,
        "uri": f"file://{bucket}/7.zip",
        "bytes": (bucket / "7.zip").stat().st_size,
        "files": 1,
        "dryRun": False,
    }


def test_a_dry_run_stores_nothing(
    exported: Path, bucket: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(exported), f"file://{bucket}", "--dry-run"]) == 0
    assert capsys.readouterr().out == "1\n"
    assert not list(bucket.iterdir())


def spoil(exported: Path, how: str) -> None:
    match how:
        case "no graph":
            (exported / "saved_model.pb").unlink()
        case "half a graph":
            content = (exported / "saved_model.pb").read_bytes()
            (exported / "saved_model.pb").write_bytes(content[:-10])
        case "no weights":
            (exported / "variables/variables.data-00000-of-00001").unlink()
        case "a link":
            (exported / "assets").symlink_to("/etc")
        case "a pipe":
            os.mkfifo(exported / "pipe")
        case "names that differ by case":
            write(exported, {"assets/A": b"", "assets/a": b""})
        case "another manifest":
            (exported / "SHA256SUMS").write_text(f"{'0' * 64}  saved_model.pb\n")


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("no graph", "saved_model.pb is missing; export"),
        ("half a graph", "saved_model.pb can't be read"),
        ("no weights", "variables.data-00000-of-00001 is missing; export"),
        ("a link", "assets is a link or a device"),
        ("a pipe", "pipe is a link or a device"),
        ("names that differ by case", "differs only by case"),
        ("another manifest", "not in SHA256SUMS; remove its SHA256SUMS"),
    ],
)
def test_an_export_that_no_poller_would_take_is_not_sent(
    exported: Path, bucket: Path, how: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(exported, how)
    assert main([str(exported), f"file://{bucket}"]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert not list(bucket.iterdir())


def test_a_manifest_of_the_exports_own_is_kept(
    exported: Path, bucket: Path, tmp_path: Path
) -> None:
    shutil.copytree(exported, tmp_path / "copy")
    own = b"# by the trainer\n" + manifest.write(tmp_path / "copy").read_bytes()
    (exported / "SHA256SUMS").write_bytes(own)
    assert main([str(exported), f"file://{bucket}", "--format=folder"]) == 0
    assert (bucket / "1/SHA256SUMS").read_bytes() == own


def test_no_manifest_is_added_where_none_is_wanted(exported: Path, bucket: Path) -> None:
    before = read(exported)
    assert main([str(exported), f"file://{bucket}", "--format=folder", "--no-manifest"]) == 0
    assert read(bucket / "1") == before


def test_an_archive_that_pollers_take_for_an_attack_is_not_sent(
    exported: Path,
    bucket: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(packing, "FREE_RATIO_BYTES", 1000)
    write(exported, {"assets/zeros": bytes(10_000_000)})
    assert main([str(exported), f"file://{bucket}"]) == 3
    assert "--format=tar" in capsys.readouterr().err
    assert main([str(exported), f"file://{bucket}", "--format=tar"]) == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["https://example.com/models"], "is only read"),
        (["ftp://example.com"], "is no storage URI"),
        (["gs://models/x", "--format=folder"], "needs --marker"),
        (["file:///x", "--marker=DONE"], "is for --format=folder"),
        (["file:///x", "--format=folder", "--marker=../DONE"], "is a file name"),
        (["file:///x", "--sign-key=x", "--no-manifest"], "leave out --no-manifest"),
        (["file:///x", "--sign-key=/nowhere"], "can't be read"),
        (["file:///nowhere/at/all"], "does not exist"),
    ],
)
def test_what_can_not_be_is_told_on_one_line(
    exported: Path, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(exported), *arguments]) in (2, 5)
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err.splitlines()[-1]


def test_a_key_under_a_password_is_refused(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_bytes(ENCRYPTED)
    assert main([str(exported), "file:///x", f"--sign-key={tmp_path / 'key'}"]) == 2
    assert "under a password" in capsys.readouterr().err


def test_a_version_has_to_be_a_number(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("latest", "-1", "1.5", str(2**63)):
        with pytest.raises(SystemExit) as ended:
            main([str(exported), "file:///x", f"--version={text}"])
        assert ended.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["--format=folder", "--marker=variables"], "variables"),
        (["--format=folder", "--marker=saved_model.pb"], "saved_model.pb"),
        (["--format=folder", "--marker=SHA256SUMS"], "SHA256SUMS"),
        (["--format=folder", "--marker=extra"], "extra"),
        (["--format=folder", "--marker=.DS_Store"], ".DS_Store"),
        (["--format=folder", "--marker="], "''"),
        (["--format=rar"], "rar"),
        (["--version=v2"], "v2"),
        (["--endpoint=minio"], "minio"),
        (["--credentials-dir=/not/there"], "/not/there"),
        (["--sign-key="], "''"),
        (["--dry"], "--dry"),
    ],
)
def test_every_bad_setting_is_one_line_that_names_the_value(
    exported: Path,
    tmp_path: Path,
    arguments: list[str],
    value: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (exported / "extra").mkdir()
    (exported / "extra" / "notes.txt").touch()
    try:
        code = main([str(exported), f"file://{tmp_path}/store", *arguments])
    except SystemExit as ended:
        code = ended.code  # type: ignore[assignment]
    assert code == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert not out
    assert line.startswith("model_publish: ")
    assert value in line
    assert not (tmp_path / "store").exists()


class Bucket:
    """An object store in memory that only creates, with faults on demand."""

    locations = (Location("models", "resnet"),)
    mount = None

    def __init__(self) -> None:
        self.uri = "gs://models/resnet"
        self.objects: dict[str, bytes] = {"resnet/readme": b""}
        self.calls: list[str] = []
        self.lose_answers = 0
        self.before_put: Callable[[str], None] = lambda _: None
        self.keep: Callable[[bytes], bytes] = lambda content: content
        self._lock = threading.Lock()

    def close(self) -> None:
        pass

    def list(self) -> list[StoredObject]:
        with self._lock:
            return [
                StoredObject(
                    root=Location("models", "resnet"),
                    path=name.removeprefix("resnet/"),
                    size=len(content),
                    crc32c=google_crc32c.value(content),
                    generation="1",
                )
                for name, content in self.objects.items()
            ]

    def survey(self) -> Iterator[StoredObject | Entry]:
        yield from self.list()

    def files(self, entry: Entry) -> Iterator[StoredObject]:
        raise AssertionError(entry)

    def describe(self, stored: StoredObject) -> StoredObject:
        return stored

    def put_new(
        self, name: str, content: IO[bytes], size: int, *, progress: Callable[[int], None]
    ) -> None:
        self.before_put(name)
        body = content.read(size)
        with self._lock:
            self.calls.append(name)
            if name in self.objects:
                raise VersionExistsError(f"{name} is there already")
            self.objects[name] = self.keep(body)
            progress(size)
            if self.lose_answers:
                self.lose_answers -= 1
                raise UnreachableError("the connection broke")


class Publication:
    """An export that is ready to be stored in a bucket."""

    def __init__(
        self, bucket: Bucket | LocalUploads, root: Path, form: str, content: bytes = b"weights"
    ) -> None:
        proof = export.Proof(marker="DONE" if form == FOLDER else None)
        self.root = root
        self.sent = 0
        self.told: list[str] = []
        export.stage(write(root / "export", model(content)), root / "staged", proof)
        location = Location("models", "resnet", "gs")
        if isinstance(bucket, LocalUploads):
            (location,) = bucket.locations
        self._publisher = Publisher(
            bucket, location, form, proof, progress=self._count, say=self.told.append
        )

    def _count(self, more: int) -> None:
        self.sent += more

    def publish(self, wanted: int | Choice = Choice.NEXT) -> int:
        made = self._publisher.publish(self.root / "staged", self.root, wanted, dry_run=False)
        return made.version


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    hurried = replace(publish.RETRIES, first_seconds=0.001)
    monkeypatch.setattr("model_poller.publishing.publish.RETRIES", hurried)


@pytest.mark.parametrize(
    ("redirections", "code", "out"),
    [
        ("2>/dev/full", 0, "1\n"),
        ("2>&-", 0, "1\n"),
        (">/dev/full", 5, ""),
        (">/dev/full 2>/dev/full", 5, ""),
        (">&-", 0, ""),
    ],
)
def test_a_log_that_takes_no_more_keeps_no_version_from_being_published(
    exported: Path, bucket: Path, redirections: str, code: int, out: str
) -> None:
    given = f'"$0" -m model_poller.publishing "$@" {redirections}'
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    environment.pop("PYTHONUNBUFFERED", None)
    ended = subprocess.run(
        ["sh", "-c", given, sys.executable, str(exported), f"file://{bucket}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (code, out)
    assert [path.name for path in bucket.iterdir()] == ["1.zip"]
    assert "TMPDIR" not in ended.stderr
    assert ("No space left on device); it would say 1" in ended.stderr) is (
        redirections == ">/dev/full"
    )


@pytest.mark.parametrize("name", ["absent", "export/saved_model.pb"])
def test_a_folder_for_what_is_packed_is_used_or_refused(
    exported: Path,
    bucket: Path,
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Python's own choice of another one may fill a disk that nobody meant."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / name))
    assert main([str(exported), f"file://{bucket}"]) == 2
    assert f"TMPDIR='{tmp_path / name}' can't be used" in capsys.readouterr().err
    assert not list(bucket.iterdir())


def test_a_folder_without_room_for_what_is_packed_is_named(
    exported: Path,
    bucket: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(packing, "pack", full)
    assert main([str(exported), f"file://{bucket}"]) == 5
    assert f"{tmp_path} has no room for the packed version; set TMPDIR" in capsys.readouterr().err
    assert not list(bucket.iterdir())


@pytest.mark.parametrize("form", ["zip", FOLDER])
def test_of_two_publishers_who_choose_the_same_number_one_takes_the_next(
    tmp_path: Path, form: str
) -> None:
    bucket = Bucket()
    meeting = threading.Barrier(2)
    contested = "resnet/1.zip" if form == "zip" else "resnet/1/saved_model.pb"

    def meet(name: str) -> None:
        if name == contested:
            meeting.wait(20)

    bucket.before_put = meet
    versions: dict[bytes, int] = {}

    # One graph, other weights: nothing of the one may end up in the other.
    def publish(content: bytes) -> None:
        versions[content] = Publication(
            bucket, tmp_path / content.decode(), form, content
        ).publish()

    threads = [threading.Thread(target=publish, args=(each,)) for each in (b"one", b"two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(versions.values()) == [1, 2]
    if form == FOLDER:
        for content, version in versions.items():
            shard = f"resnet/{version}/variables/variables.data-00000-of-00001"
            assert bucket.objects[shard] == content + b"\0"


def test_a_chosen_number_that_somebody_else_was_faster_with_is_refused(tmp_path: Path) -> None:
    bucket = Bucket()
    bucket.before_put = lambda name: bucket.objects.update({name: b"other"})
    with pytest.raises(VersionExistsError, match=r"resnet/4\.zip is there already"):
        Publication(bucket, tmp_path, "zip").publish(4)
    assert bucket.objects["resnet/4.zip"] == b"other"


def test_somebody_who_is_always_slower_is_told_so(tmp_path: Path) -> None:
    bucket = Bucket()
    bucket.before_put = lambda name: bucket.objects.update({name: b"other"})
    with pytest.raises(VersionExistsError, match="20 versions in a row"):
        Publication(bucket, tmp_path, "zip").publish()


def test_a_folders_graph_is_stored_first_and_its_marker_last(tmp_path: Path) -> None:
    bucket = Bucket()
    Publication(bucket, tmp_path, FOLDER).publish()
    assert bucket.calls[0] == "resnet/1/saved_model.pb"
    assert bucket.calls[-1] == "resnet/1/DONE"
    assert len(bucket.calls) == 5


def test_a_lost_answer_does_not_make_a_second_version(tmp_path: Path) -> None:
    bucket = Bucket()
    bucket.lose_answers = 1
    made = Publication(bucket, tmp_path, "zip")
    assert made.publish() == 1
    assert bucket.calls == ["resnet/1.zip"] * 2
    assert "the connection broke; trying again" in made.told[1]


def test_a_folder_whose_first_answer_was_lost_is_given_up(tmp_path: Path) -> None:
    """Whether the number is ours can't be told, as others may have the same graph."""
    bucket = Bucket()
    bucket.lose_answers = 1
    with pytest.raises(UnreachableError):
        Publication(bucket, tmp_path / "a", FOLDER).publish()
    assert "resnet/1/DONE" not in bucket.objects
    assert Publication(bucket, tmp_path / "b", FOLDER).publish() == 2


class KilledError(BaseException):
    """The process is gone: nothing of it runs any more."""


class Deadly(Bucket):
    """A bucket that kills who stores more than so many objects in it, with all their threads."""

    def __init__(self, bucket: Bucket, count: int) -> None:
        super().__init__()
        self.objects = bucket.objects
        self._bucket = bucket
        self._count = count
        self._one = threading.Lock()

    def put_new(
        self, name: str, content: IO[bytes], size: int, *, progress: Callable[[int], None]
    ) -> None:
        with self._one:
            self._count -= 1
            if self._count < 0:
                raise KilledError
            self._bucket.put_new(name, content, size, progress=progress)


def half(bucket: Bucket, root: Path, count: int, version: int = 5) -> None:
    """What a publisher leaves that is killed when it has stored so many files."""
    with pytest.raises(KilledError):
        Publication(Deadly(bucket, count), root, FOLDER).publish(version)


class Large(Bucket):
    """One whose listing shows folders, and not what is in them."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        """Folders that were gone into."""

    def list(self) -> list[StoredObject]:
        raise AssertionError("all of it is asked for")

    def survey(self) -> Iterator[StoredObject | Entry]:
        every = super().list()
        tops = dict.fromkeys(one.path.partition("/")[0] for one in every if "/" in one.path)
        yield from (Entry(self.locations[0], top, is_folder=True) for top in tops)
        yield from (one for one in every if "/" not in one.path)

    def files(self, entry: Entry) -> Iterator[StoredObject]:
        self.opened.append(entry.name)
        yield from (one for one in super().list() if one.path.startswith(f"{entry.name}/"))


@pytest.mark.parametrize("form", ["zip", FOLDER])
def test_what_a_publisher_asks_for_does_not_grow_with_what_a_bucket_keeps(
    tmp_path: Path, form: str
) -> None:
    bucket = Large()
    for number in range(1, 300):
        bucket.objects |= {f"resnet/{number}/{name}": b"" for name in ("saved_model.pb", "DONE")}
    assert Publication(bucket, tmp_path / "next", form).publish() == 300
    assert Publication(bucket, tmp_path / "chosen", form).publish(500) == 500
    assert set(bucket.opened) <= {"299", "300", "500"}
    with pytest.raises(VersionExistsError, match="resnet/7; publish under another"):
        Publication(bucket, tmp_path / "taken", form).publish(7)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_folder_of_a_publisher_that_was_killed_is_gone_on_with(
    tmp_path: Path, count: int
) -> None:
    bucket, whole = Bucket(), Bucket()
    Publication(whole, tmp_path / "whole", FOLDER).publish(5)
    half(bucket, tmp_path / "first", count)
    assert "resnet/5/DONE" not in bucket.objects
    again = Publication(bucket, tmp_path / "second", FOLDER)
    assert again.publish(5) == 5
    assert bucket.objects == whole.objects
    assert len(bucket.calls) == len(set(bucket.calls)), "nothing is sent twice"
    assert bucket.calls[-1] == "resnet/5/DONE"
    assert "is there in part" in again.told[0]
    with pytest.raises(VersionExistsError):
        Publication(bucket, tmp_path / "third", FOLDER).publish(5)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_what_was_left_of_another_export_is_not_gone_on_with(tmp_path: Path, count: int) -> None:
    bucket = Bucket()
    half(bucket, tmp_path / "first", count)
    before = dict(bucket.objects)
    other = Publication(bucket, tmp_path / "second", FOLDER, b"of another training")
    if count == 1:
        # Both have the same graph, and nothing is there that could be mixed with it.
        assert other.publish(5) == 5
        return
    with pytest.raises(CorruptUploadError, match="is not this export's; remove the folder") as told:
        other.publish(5)
    assert "gs://models/resnet/5/ is there in part" in str(told.value)
    assert bucket.objects == before
    assert other.publish() == 6
    assert "a part of gs://models/resnet/5/ is stored, which no poller takes" in other.told[-2]


def test_what_was_left_of_more_files_is_not_gone_on_with(tmp_path: Path) -> None:
    bucket = Bucket()
    half(bucket, tmp_path / "first", 2)
    bucket.objects["resnet/5/assets/more"] = b""
    with pytest.raises(CorruptUploadError, match="its 5/assets/more is not this export's"):
        Publication(bucket, tmp_path / "second", FOLDER).publish(5)


def test_of_who_goes_on_with_a_folder_and_who_still_writes_it_one_ends_it(tmp_path: Path) -> None:
    """The one with the other weights waits where the manifest is decided."""
    bucket, ended = Bucket(), []
    started, go_on = threading.Event(), threading.Event()

    def hold(name: str) -> None:
        if name == "resnet/5/SHA256SUMS" and not started.is_set():
            started.set()
            go_on.wait(20)

    def write_slowly() -> None:
        try:
            Publication(bucket, tmp_path / "slow", FOLDER, b"slow").publish(5)
        except VersionExistsError as error:
            ended.append(error)

    slow = threading.Thread(target=write_slowly)
    bucket.before_put = hold
    slow.start()
    assert started.wait(20)
    assert Publication(bucket, tmp_path / "fast", FOLDER, b"fast").publish(5) == 5
    whole = dict(bucket.objects)
    go_on.set()
    slow.join(20)
    assert ended
    assert bucket.objects == whole


def test_a_store_that_does_not_answer_is_asked_four_times(tmp_path: Path) -> None:
    bucket = Bucket()

    def fail(_: str) -> None:
        bucket.calls.append("put")
        raise UnreachableError("the store does not answer")

    bucket.before_put = fail
    made = Publication(bucket, tmp_path, "zip")
    with pytest.raises(UnreachableError):
        made.publish()
    assert len(bucket.calls) == 4
    assert made.sent == 0


def test_a_store_that_keeps_other_bytes_is_found_out(tmp_path: Path) -> None:
    bucket = Bucket()
    bucket.keep = lambda content: bytes([content[0] ^ 1]) + content[1:]
    with pytest.raises(CorruptUploadError, match=r"1\.zip: the store shows something else"):
        Publication(bucket, tmp_path, "zip").publish()


def test_a_number_that_was_published_in_another_form_at_once_is_told(tmp_path: Path) -> None:
    bucket = Bucket()
    bucket.before_put = lambda _: bucket.objects.update({"resnet/01.tar": b"other"})
    with pytest.raises(CorruptUploadError, match=r"1\.zip and 01\.tar; no poller takes it"):
        Publication(bucket, tmp_path, "zip").publish()


class Ending(io.BytesIO):
    """A file whose disk breaks in the middle."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise OSError(5, "Input/output error")
        return super().read(min(size or 1, 10))


def test_half_of_a_file_is_never_left_under_its_name(bucket: Path) -> None:
    uploads = LocalUploads(parse_uri(f"file://{bucket}"), bucket)
    seen: list[str] = []

    def look(_: int) -> None:
        seen.extend(path.name for path in bucket.iterdir() if not path.name.startswith("."))

    with pytest.raises(UnreachableError, match="Input/output error"):
        uploads.put_new(f"{bucket}/1.zip"[1:], Ending(bytes(100)), 100, progress=look)
    uploads.put_new(f"{bucket}/2.zip"[1:], io.BytesIO(bytes(100)), 100, progress=look)
    assert seen == []
    assert [path.name for path in bucket.iterdir()] == ["2.zip"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP])
@pytest.mark.parametrize("flags", [True, False])
def test_a_file_system_whose_files_have_one_name_takes_archives_as_well(
    bucket: Path, monkeypatch: pytest.MonkeyPatch, number: int, flags: bool
) -> None:
    def refuse(*_: object, as_number: int = number) -> None:
        raise OSError(as_number, os.strerror(as_number))

    monkeypatch.setattr("pathlib.Path.hardlink_to", refuse)
    if flags:
        # Whoever is killed between two calls would leave what the first one made.
        monkeypatch.setattr("pathlib.Path.touch", partial(refuse, as_number=errno.EIO))
    else:
        monkeypatch.setattr(local_upload, "_rename", partial(refuse, as_number=errno.EINVAL))
    uploads = LocalUploads(parse_uri(f"file://{bucket}"), bucket)
    name = f"{bucket}/1.zip"[1:]
    uploads.put_new(name, io.BytesIO(b"first"), 5, progress=lambda _: None)
    with pytest.raises(VersionExistsError):
        uploads.put_new(name, io.BytesIO(b"other"), 5, progress=lambda _: None)
    assert read(bucket) == {"1.zip": b"first"}


@pytest.mark.parametrize("form", ["zip", FOLDER])
def test_on_a_file_system_nothing_is_replaced_either(
    bucket: Path, tmp_path: Path, form: str
) -> None:
    class Blind(LocalUploads):
        def survey(self) -> Iterator[Entry]:
            return iter(())

    write(bucket, {"1.zip": b"other", "1/x": b"other"})
    blind = Blind(parse_uri(f"file://{bucket}"), bucket)
    with pytest.raises(VersionExistsError, match=r"bucket/1(\.zip)? is there already"):
        Publication(blind, tmp_path, form).publish(1)
    assert read(bucket) == {"1.zip": b"other", "1/x": b"other"}


def test_a_folder_is_made_with_the_first_version_but_not_the_one_above(
    exported: Path, tmp_path: Path
) -> None:
    assert main([str(exported), f"file://{tmp_path}/new"]) == 0
    with pytest.raises(BucketNotFoundError):
        LocalUploads(parse_uri(f"file://{tmp_path}/a/b"), tmp_path / "a/b").list()
