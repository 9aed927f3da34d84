"""Archives, good and hostile."""

from __future__ import annotations

import contextlib
import io
import stat
import struct
import tarfile
import warnings
import zipfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_poller.archive import Limits, find_model, unpack
from model_poller.errors import BrokenVersionError, InsufficientDiskError, StoppedError
from model_poller.status import VersionReason
from tests.unit.poller.doubles import below, model, tarred, zipped

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SMALL = Limits(entries=50, expanded_bytes=300 << 20, ratio=200)
ROOM = 1 << 40


def run(tmp_path: Path, content: bytes, name: str, free: int = ROOM) -> Path:
    archive, tree = tmp_path / "archive", tmp_path / "tree"
    archive.write_bytes(content)

    def room(needed: int) -> None:
        if needed > free:
            raise InsufficientDiskError("full", needed)

    with archive.open("rb") as bundle:
        unpack(
            bundle,
            len(content),
            tree,
            origin=f"gs://b/{name}",
            room=room,
            stopped=lambda: False,
            limits=SMALL,
        )
    return tree


def contents(tree: Path) -> dict[str, bytes]:
    return {p.relative_to(tree).as_posix(): p.read_bytes() for p in tree.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("1.zip", zipped),
        ("1.zip", lambda files: zipped(files, zipfile.ZIP_STORED)),
        ("1.tar", lambda files: tarred(files, "w")),
        ("1.tar.gz", tarred),
        ("1.tgz", tarred),
    ],
)
def test_a_good_archive_comes_out_as_it_was_packed(
    tmp_path: Path, name: str, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    files = below("0001", model(b"x" * 3_000_000))
    tree = run(tmp_path, pack(files), name)
    assert contents(tree) == files
    assert find_model(tree, 1, name) == tree / "0001"


def test_what_comes_out_is_readable_by_everybody(tmp_path: Path) -> None:
    tree = run(tmp_path, zipped(below("1", model())), "1.zip")
    for path in tree.rglob("*"):
        wanted = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
        assert path.stat().st_mode & wanted == wanted


def test_a_savedmodel_may_lie_at_the_top_of_its_archive(tmp_path: Path) -> None:
    tree = run(tmp_path, zipped(model()), "7.zip")
    assert find_model(tree, 7, "7.zip") == tree


def test_what_macos_adds_to_archives_is_left_out(tmp_path: Path) -> None:
    noise = {"__MACOSX/1/._saved_model.pb": b"x", "1/.DS_Store": b"x"}
    tree = run(tmp_path, zipped({**below("1", model()), **noise}), "1.zip")
    assert contents(tree) == below("1", model())


def test_an_archive_of_another_version_is_refused_with_both_numbers(tmp_path: Path) -> None:
    tree = run(tmp_path, zipped(below("0002", model())), "0001.zip")
    with pytest.raises(BrokenVersionError, match=r"folder 0002, which is version 2, not 1"):
        find_model(tree, 1, "gs://b/0001.zip")


def test_an_archive_without_a_model_says_what_it_holds(tmp_path: Path) -> None:
    tree = run(tmp_path, zipped({"readme.txt": b"hi"}), "1.zip")
    with pytest.raises(BrokenVersionError, match=r"holds readme\.txt") as caught:
        find_model(tree, 1, "gs://b/1.zip")
    assert caught.value.reason is VersionReason.MISSING_SAVED_MODEL


def zip_with_mode(name: str, mode: int, content: bytes = b"/etc/passwd") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        bundle.writestr(info, content)
    return buffer.getvalue()


def zip_of_names(*names: str) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with zipfile.ZipFile(buffer, "w") as bundle:
            for name in names:
                bundle.writestr(zipfile.ZipInfo(name), b"" if name.endswith("/") else b"x")
    return buffer.getvalue()


def zip_with_nul() -> bytes:
    return zip_of_names("1/aXb").replace(b"1/aXb", b"1/a\0b")


def encrypted_zip() -> bytes:
    content = bytearray(zip_of_names("1/saved_model.pb"))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def overlapping_zip() -> bytes:
    """Two directory entries that unpack the same stored bytes."""
    plain = zip_of_names("1/aa", "1/bb")
    start = plain.index(b"PK\x01\x02")
    directory = bytearray(plain[start:])
    second = directory.index(b"PK\x01\x02", 4)
    directory[second + 42 : second + 46] = struct.pack("<I", 0)
    for entry in (0, second):
        directory[entry + 20 : entry + 28] = struct.pack("<II", len(plain), len(plain))
    return plain[:start] + bytes(directory)


def zip_bomb() -> bytes:
    return zipped({"1/zeros": bytes(200 << 20)})


def lying_zip(declared: int) -> bytes:
    """Says another size than what is in it, in both of its headers."""
    content = bytearray(zipped({"1/saved_model.pb": b"a" * 1000}))
    content[22:26] = struct.pack("<I", declared)
    at = content.index(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", declared)
    return bytes(content)


def damaged_zip() -> bytes:
    content = bytearray(zipped(below("1", model(b"abc" * 1000)), zipfile.ZIP_STORED))
    content[content.index(b"abcabc") + 5] ^= 0xFF
    return bytes(content)


def tar_entry(name: str, kind: bytes, link: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as bundle:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        bundle.addfile(info)
    return buffer.getvalue()


def sparse_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as bundle:
        info = tarfile.TarInfo("1/sparse")
        info.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": "99999999999"}
        bundle.addfile(info)
    return buffer.getvalue()


UNSAFE = VersionReason.UNSAFE_ARCHIVE
BAD = VersionReason.BAD_ARCHIVE
LARGE = VersionReason.ARCHIVE_TOO_LARGE

HOSTILE: dict[str, tuple[str, bytes, VersionReason]] = {
    "parent path": ("1.zip", zip_of_names("../evil"), UNSAFE),
    "parent path within": ("1.zip", zip_of_names("1/../../evil"), UNSAFE),
    "parent path that stays inside": ("1.zip", zip_of_names("1/x/../y"), UNSAFE),
    "parent folder entry": ("1.zip", zip_of_names("../evil/"), UNSAFE),
    "absolute path": ("1.zip", zip_of_names("/etc/evil"), UNSAFE),
    "double slash": ("1.zip", zip_of_names("1//evil"), UNSAFE),
    "backslash path": ("1.zip", zip_of_names("1\\..\\..\\evil"), UNSAFE),
    "drive letter": ("1.zip", zip_of_names("C:\\evil"), UNSAFE),
    "NUL in a name": ("1.zip", zip_with_nul(), UNSAFE),
    "newline in a name": ("1.zip", zip_of_names("1/a\nb"), UNSAFE),
    "empty name": ("1.zip", zip_of_names(""), UNSAFE),
    "dot as a name": ("1.zip", zip_of_names("1/./x"), UNSAFE),
    "the same name twice": ("1.zip", zip_of_names("1/a", "1/a"), UNSAFE),
    "names that differ by case": ("1.zip", zip_of_names("1/a", "1/A"), UNSAFE),
    "folders that differ by case": ("1.zip", zip_of_names("1/a/x", "1/A/y"), UNSAFE),
    "a file that is a folder too": ("1.zip", zip_of_names("1/a", "1/a/b"), UNSAFE),
    "a folder that is a file too": ("1.zip", zip_of_names("1/a/b", "1/a"), UNSAFE),
    "a folder entry over a file": ("1.zip", zip_of_names("1/a", "1/a/"), UNSAFE),
    "symbolic link": ("1.zip", zip_with_mode("1/link", stat.S_IFLNK | 0o777), UNSAFE),
    "device": ("1.zip", zip_with_mode("1/null", stat.S_IFCHR | 0o666), UNSAFE),
    "named pipe": ("1.zip", zip_with_mode("1/pipe", stat.S_IFIFO | 0o666), UNSAFE),
    "encrypted": ("1.zip", encrypted_zip(), UNSAFE),
    "overlapping entries": ("1.zip", overlapping_zip(), UNSAFE),
    "long component": ("1.zip", zip_of_names("1/" + "a" * 300), UNSAFE),
    "long path": ("1.zip", zip_of_names("/".join(["a" * 200] * 8)), UNSAFE),
    "deep path": ("1.zip", zip_of_names("/".join(["a"] * 40)), UNSAFE),
    "too many entries": ("1.zip", zip_of_names(*[f"1/{i}" for i in range(60)]), LARGE),
    "bomb": ("1.zip", zip_bomb(), LARGE),
    "declared smaller than it is": ("1.zip", lying_zip(10), BAD),
    "declared larger than it is": ("1.zip", lying_zip(100_000), BAD),
    "damaged content": ("1.zip", damaged_zip(), BAD),
    "cut": ("1.zip", zipped(below("1", model(b"x" * 5000)))[:-100], BAD),
    "cut to its first half": ("1.zip", zipped(below("1", model(b"x" * 50)))[:200], BAD),
    "no archive": ("1.zip", b"not an archive at all", BAD),
    "empty": ("1.zip", b"", BAD),
    "a tar called zip": ("1.zip", tarred(below("1", model())), BAD),
    "tar: parent path": ("1.tar.gz", tarred({"../evil": b"x"}), UNSAFE),
    "tar: absolute path": ("1.tar.gz", tarred({"/etc/evil": b"x"}), UNSAFE),
    "tar: symbolic link": ("1.tar.gz", tar_entry("1/l", tarfile.SYMTYPE, "/etc"), UNSAFE),
    "tar: hard link": ("1.tar.gz", tar_entry("1/l", tarfile.LNKTYPE, "/etc/passwd"), UNSAFE),
    "tar: device": ("1.tar.gz", tar_entry("1/d", tarfile.CHRTYPE), UNSAFE),
    "tar: named pipe": ("1.tar.gz", tar_entry("1/p", tarfile.FIFOTYPE), UNSAFE),
    "tar: sparse file": ("1.tar.gz", sparse_tar(), UNSAFE),
    "tar: too many entries": ("1.tar.gz", tarred({f"1/{i}": b"" for i in range(60)}), LARGE),
    "tar: bomb": ("1.tar.gz", tarred({"1/zeros": bytes(200 << 20)}), LARGE),
    "tar: cut gzip": ("1.tar.gz", tarred(below("1", model(b"xyz" * 9999)))[:-60], BAD),
    "tar: cut": ("1.tar", tarred(below("1", model()), "w")[:2000], BAD),
    "tar: no end mark": ("1.tar", tarred({"1/a": b"x"}, "w")[:1024], BAD),
    "tar: no archive": ("1.tar.gz", b"\x1f\x8bnonsense", BAD),
    "tar: empty": ("1.tar", b"", BAD),
    "a zip called tar": ("1.tar.gz", zipped(below("1", model())), BAD),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_or_damaged_archive_is_refused_and_nothing_leaves_its_folder(
    tmp_path: Path, case: str
) -> None:
    name, content, reason = HOSTILE[case]
    with pytest.raises(BrokenVersionError) as caught:
        run(tmp_path, content, name)
    assert caught.value.reason is reason
    assert f"gs://b/{name}" in str(caught.value)
    assert {p.name for p in tmp_path.iterdir()} == {"archive", "tree"}
    assert not any(p.is_symlink() for p in tmp_path.rglob("*"))


def test_an_archive_that_does_not_fit_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(InsufficientDiskError) as caught:
        run(tmp_path, zipped(below("1", model(b"x" * 5000))), "1.zip", free=4000)
    assert caught.value.needed > 5000
    assert contents(tmp_path / "tree") == {}


def test_unpacking_stops_when_it_is_told(tmp_path: Path) -> None:
    content = zipped(model())
    with pytest.raises(StoppedError):
        unpack(
            io.BytesIO(content),
            len(content),
            tmp_path / "tree",
            origin="gs://b/1.zip",
            room=lambda _: None,
            stopped=lambda: True,
            limits=SMALL,
        )


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_an_archive_with_any_byte_changed_is_refused_or_comes_out_unharmed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Fuzz: no other error than ours, and nothing outside of the tree."""
    name = data.draw(st.sampled_from(["1.zip", "1.tar", "1.tar.gz"]))
    files = below("1", model(b"some weights" * 20))
    content = bytearray(
        zipped(files) if name == "1.zip" else tarred(files, "w" if name == "1.tar" else "w:gz")
    )
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("fuzz")
    with contextlib.suppress(BrokenVersionError):
        run(folder, bytes(content), name)
    assert {p.name for p in folder.iterdir()} == {"archive", "tree"}


@given(name=st.text(max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_entry_name_stays_below_its_folder_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    folder = tmp_path_factory.mktemp("names")
    try:
        content = zip_of_names(name)
    except (UnicodeEncodeError, ValueError):
        return
    with contextlib.suppress(BrokenVersionError):
        run(folder, content, "1.zip")
    assert {p.name for p in folder.iterdir()} == {"archive", "tree"}
