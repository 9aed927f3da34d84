"""Archives that are fine: what comes out, in which order it is read, and what stops it."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import subprocess
import tarfile
import tracemalloc
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from model_poller.archives import peek
from model_poller.archives.archive import Limits, find_model, unpack
from model_poller.errors import (
    BrokenVersionError,
    InsufficientDiskError,
    StoppedError,
    UnreachableError,
)
from tests.unit.poller.doubles import MemorySource, below, model, tarred, zipped
from tests.unit.poller.packing import (
    DEFLATED,
    Entry,
    extra_64,
    file,
    header,
    long_name,
    padded,
    pax,
    tar_of,
    zip_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import IO

    from model_poller.stores import StoredObject

FILES = below("0001", model(bytes(range(256)) * 12_000, shards=2))


def zst(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(content)


def run(
    tmp_path: Path,
    content: bytes | IO[bytes],
    name: str,
    *,
    free: int = 1 << 40,
    stopped: Callable[[], bool] = lambda: False,
    size: int | None = None,
    limits: Limits | None = None,
) -> Path:
    def room(needed: int) -> None:
        if needed > free:
            raise InsufficientDiskError("full", needed)

    bundle = io.BytesIO(content) if isinstance(content, bytes) else content
    unpack(
        bundle,
        len(content) if isinstance(content, bytes) else size or 0,
        tmp_path / "tree",
        origin=f"gs://b/{name}",
        room=room,
        stopped=stopped,
        limits=limits or Limits(),
    )
    return tmp_path / "tree"


def contents(tree: Path) -> dict[str, bytes]:
    return {p.relative_to(tree).as_posix(): p.read_bytes() for p in tree.rglob("*") if p.is_file()}


def streamed_zip(files: dict[str, bytes]) -> bytes:
    """As it is written into a pipe: each entry's sizes follow its content."""

    class Pipe(io.BytesIO):
        def tell(self) -> int:
            raise io.UnsupportedOperation

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in files.items():
            bundle.writestr(name, content)
    return pipe.getvalue()


def zip64(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in files.items():
            with bundle.open(name, "w", force_zip64=True) as entry:
                entry.write(content)
    return buffer.getvalue()


def in_members(content: bytes, pack: Callable[[bytes], bytes]) -> bytes:
    """Several parts, one after the other, an empty one among them."""
    third = len(content) // 3
    return b"".join(pack(p) for p in (content[:third], b"", content[third : 2 * third])) + pack(
        content[2 * third :]
    )


def blocks(content: bytes) -> bytes:
    """As bsdtar, which is macOS's tar, writes it into a pipe."""
    return content + bytes(-len(content) % 10240)


def skipped() -> bytes:
    return b"\x5a\x2a\x4d\x18" + struct.pack("<L", 5) + b"words"


def tar_in(form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as bundle:
        bundle.addfile(directory("./"))
        bundle.addfile(directory("./0001"))
        for name, content in FILES.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size, info.mtime = len(content), 1.5
            bundle.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def directory(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info


GOOD: dict[str, tuple[str, Callable[[], bytes]]] = {
    "zip": ("1.zip", lambda: zipped(FILES)),
    "zip that is not compressed": ("1.zip", lambda: zipped(FILES, zipfile.ZIP_STORED)),
    "zip written into a pipe": ("1.zip", lambda: streamed_zip(FILES)),
    "zip64": ("1.zip", lambda: zip64(FILES)),
    "zip64 all over": (
        "1.zip",
        lambda: zip_of(
            *(
                Entry(
                    name,
                    content,
                    method=DEFLATED,
                    central={"expanded": 0xFFFFFFFF, "extra": extra_64(len(content))},
                )
                for name, content in FILES.items()
            ),
            zip64={},
        ),
    ),
    "zip with a comment": (
        "1.zip",
        lambda: zip_of(*map(Entry, FILES, FILES.values()), comment=b"PK\x05\x06" * 9000),
    ),
    "zip in any order": (
        "1.zip",
        lambda: zip_of(*map(Entry, reversed(FILES), reversed(FILES.values()))),
    ),
    "zip with folders": (
        "1.zip",
        lambda: zip_of(
            Entry("0001/", b"", mode=stat.S_IFDIR | 0o755),
            Entry("0001/variables/", b"", method=DEFLATED),
            *map(Entry, FILES, FILES.values()),
        ),
    ),
    "tar": ("1.tar", lambda: tarred(FILES, "w")),
    "tar.gz": ("1.tar.gz", lambda: tarred(FILES)),
    "tgz": ("1.tgz", lambda: tarred(FILES)),
    "tar.zst": ("1.tar.zst", lambda: zst(tarred(FILES, "w"))),
    "tzst": ("1.tzst", lambda: zst(tarred(FILES, "w"))),
    "tar of GNU": ("1.tar", lambda: tar_in(tarfile.GNU_FORMAT)),
    "tar of POSIX 1988": ("1.tar", lambda: tar_in(tarfile.USTAR_FORMAT)),
    "tar of POSIX 2001": ("1.tar", lambda: tar_in(tarfile.PAX_FORMAT)),
    "tar before POSIX": (
        "1.tar",
        lambda: tar_of(
            header("0001/", kind=b"\0", magic=bytes(8)),
            *(file(n, c, kind=b"\0", magic=bytes(8)) for n, c in FILES.items()),
        ),
    ),
    "tar of git": (
        "1.tar",
        lambda: tar_of(pax(b"g", comment="a commit"), *(file(n, c) for n, c in FILES.items())),
    ),
    "tar with sizes in binary": (
        "1.tar",
        lambda: tar_of(
            *(header(n, b"\x80" + len(c).to_bytes(11, "big")) + padded(c) for n, c in FILES.items())
        ),
    ),
    "tar with one block at its end": (
        "1.tar",
        lambda: tar_of(*(file(n, c) for n, c in FILES.items()), end=bytes(512)),
    ),
    "gz in members": ("1.tar.gz", lambda: in_members(tarred(FILES, "w"), gzip.compress)),
    "zst in frames": ("1.tar.zst", lambda: in_members(tarred(FILES, "w"), zst)),
    "zst with parts to skip": (
        "1.tar.zst",
        lambda: skipped() + in_members(tarred(FILES, "w"), zst) + skipped(),
    ),
    "zip in blocks": ("1.zip", lambda: blocks(zipped(FILES))),
    "zip with a comment in blocks": (
        "1.zip",
        lambda: blocks(zip_of(*map(Entry, FILES, FILES.values()), comment=b"x" * 50_000)),
    ),
    "tar.gz in blocks": ("1.tar.gz", lambda: blocks(tarred(FILES))),
    "tar.zst in blocks": ("1.tar.zst", lambda: blocks(zst(tarred(FILES, "w")))),
    "tar.zst in blocks with few bytes in the last": (
        "1.tar.zst",
        lambda: zst(tarred(FILES, "w")) + bytes(1),
    ),
    "zst without a size or a checksum": (
        "1.tar.zst",
        lambda: zstandard.ZstdCompressor(
            write_checksum=False, write_content_size=False, level=1
        ).compress(tarred(FILES, "w")),
    ),
    "zst with the largest window": (
        "1.tar.zst",
        lambda: zstandard.ZstdCompressor(
            compression_params=zstandard.ZstdCompressionParameters(
                window_log=27, write_content_size=False
            )
        ).compress(tarred(FILES, "w")),
    ),
}


def stored(name: str, content: bytes) -> tuple[MemorySource, StoredObject]:
    source = MemorySource()
    source.put(name, content)
    return source, source.list()[0]


@pytest.mark.parametrize("case", GOOD)
def test_what_an_archive_holds_is_seen_before_it_is_fetched(case: str) -> None:
    name, content = GOOD[case]
    held = peek.names(*stored(name, content()))
    assert peek.is_model(held, name)
    assert {each for each in held if not each.endswith("/")} <= {
        *FILES,
        *(each.removeprefix("0001/") for each in FILES),
    }


@pytest.mark.parametrize(
    "content",
    [
        # Each of a thousand records goes on to the last byte, by its keyword.
        tar_of(header("pax", 4096, b"x"), b"2 " * 2047 + b"=\n", file("saved_model.pb")),
        tar_of(header("pax", 1 << 20, b"x"), bytes(1 << 20), file("saved_model.pb")),
    ],
)
def test_a_header_that_nobody_can_read_in_time_is_not_read(content: bytes) -> None:
    assert peek.names(*stored("1.tar", content)) == []


@pytest.mark.parametrize("case", GOOD)
def test_a_good_archive_comes_out_as_it_was_packed(tmp_path: Path, case: str) -> None:
    name, pack = GOOD[case]
    tree = run(tmp_path, pack(), name)
    assert contents(tree) == FILES
    assert find_model(tree, 1, name) == tree / "0001"


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "posix"])
@pytest.mark.parametrize(("option", "ending"), [("--no-auto-compress", "tar"), ("--gzip", "tgz")])
def test_what_gnu_tar_packs_comes_out(tmp_path: Path, form: str, option: str, ending: str) -> None:
    source = tmp_path / "source"
    files = dict(FILES)
    if form not in ("v7", "ustar"):
        files[f"0001/{'long/' * 20}{'n' * 120}"] = b"deep"
    for name, content in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    packed = tmp_path / f"1.{ending}"
    subprocess.run(
        ["tar", f"--format={form}", option, "-cf", packed, "-C", source, "."], check=True
    )
    assert contents(run(tmp_path, packed.read_bytes(), packed.name)) == files


@pytest.mark.parametrize("name", ["caf\u00e9", "\u6a21\u578b", "a b", "100%", "#1", "*", "\u00df"])
def test_names_beyond_letters_come_out(tmp_path: Path, name: str) -> None:
    for place, (ending, content) in enumerate(
        {
            "1.zip": zip_of(Entry(f"1/{name}")),
            "1.tar": tar_of(file(f"1/{name}")),
            "2.tar": tar_of(pax(path=f"1/{name}"), file("short")),
            "3.tar": tar_of(long_name(f"1/{name}".encode()), file("short")),
        }.items()
    ):
        folder = tmp_path / str(place)
        folder.mkdir()
        assert contents(run(folder, content, ending)) == {f"1/{name}": b"x"}


def test_a_name_that_is_no_utf_8_is_of_dos(tmp_path: Path) -> None:
    assert contents(run(tmp_path, zip_of(Entry(b"1/caf\x82")), "1.zip")) == {"1/caf\u00e9": b"x"}


def test_what_comes_out_is_readable_by_everybody(tmp_path: Path) -> None:
    tree = run(tmp_path, zipped(below("1", model())), "1.zip")
    for path in tree.rglob("*"):
        wanted = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
        assert path.stat().st_mode & wanted == wanted


def test_a_savedmodel_may_lie_at_the_top_of_its_archive(tmp_path: Path) -> None:
    tree = run(tmp_path, zipped(model()), "7.zip")
    assert find_model(tree, 7, "7.zip") == tree


@pytest.mark.parametrize("pack", [zipped, lambda files: tarred(files, "w")])
def test_what_macos_adds_to_archives_is_left_out(
    tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    noise = {
        "__MACOSX/1/._saved_model.pb": b"x",
        "1/.DS_Store": b"x",
        "._1": b"x",
        "1/._saved_model.pb": b"x" * 700,
    }
    content = pack({**noise, **below("1", model())})
    tree = run(tmp_path, content, "1.zip" if content[:2] == b"PK" else "1.tar")
    assert contents(tree) == below("1", model())
    assert find_model(tree, 1, "1.zip") == tree / "1"


def test_a_window_that_is_too_large_is_told_how_to_avoid(tmp_path: Path) -> None:
    packer = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=28)
    ).compressobj()
    content = packer.compress(tarred(FILES, "w")) + packer.flush()
    with pytest.raises(BrokenVersionError, match=r"268435456 bytes of memory; pack it with --long"):
        run(tmp_path, content, "1.tar.zst")


# Room and time.


@pytest.mark.parametrize("case", ["zip", "tar", "tar.gz", "tar.zst"])
def test_no_more_than_the_limit_comes_out(tmp_path: Path, case: str) -> None:
    name, pack = GOOD[case]
    size = sum(map(len, FILES.values()))
    with pytest.raises(BrokenVersionError, match=f"expands to more than {size - 1} bytes"):
        run(tmp_path, pack(), name, limits=Limits(expanded_bytes=size - 1))


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("1.zip", zipped),
        ("1.tar", lambda files: tarred(files, "w")),
        ("1.tar.zst", lambda files: zst(tarred(files, "w"))),
    ],
)
def test_an_archive_that_tells_its_size_and_does_not_fit_writes_nothing(
    tmp_path: Path, name: str, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    files = {"1/a": b"a", "1/b": b"b" * 5000}
    with pytest.raises(InsufficientDiskError) as caught:
        run(tmp_path, pack(files), name, free=5000)
    assert caught.value.needed > 5000
    assert contents(tmp_path / "tree") == {}


def test_of_an_archive_that_tells_no_size_each_file_is_asked_for(tmp_path: Path) -> None:
    files = {"1/a": b"a", "1/b": b"b" * 5000}
    with pytest.raises(InsufficientDiskError) as caught:
        run(tmp_path, tarred(files), "1.tar.gz", free=4999)
    assert caught.value.needed == 5000
    assert contents(tmp_path / "tree") == {"1/a": b"a"}


@pytest.mark.parametrize("case", ["zip", "tar", "tar.gz", "tar.zst"])
def test_unpacking_stops_when_it_is_told(tmp_path: Path, case: str) -> None:
    name, pack = GOOD[case]
    calls = iter(range(100))
    with pytest.raises(StoppedError):
        run(tmp_path, pack(), name, stopped=lambda: next(calls) >= 3)
    assert contents(tmp_path / "tree") != FILES


def test_what_unpacks_to_nothing_for_ever_is_stopped_too(tmp_path: Path) -> None:
    nothing = gzip.compress(b"") * 1000
    calls = iter(range(100))
    with pytest.raises(StoppedError):
        run(tmp_path, nothing, "1.tar.gz", stopped=lambda: next(calls) >= 9)
    assert next(calls) == 10


# While it arrives.


class Arriving(io.BytesIO):
    """Tells which bytes were asked for, and fails at those that never come."""

    def __init__(self, content: bytes, there: int) -> None:
        super().__init__(content)
        self.asked: list[tuple[int, int]] = []
        self._there = there

    def read(self, size: int | None = -1, /) -> bytes:
        start = self.tell()
        content = super().read(size)
        self.asked.append((start, start + len(content)))
        if start + len(content) > self._there:
            raise UnreachableError("the rest did not come")
        return content


@pytest.mark.parametrize("case", ["tar", "tar.gz", "tar.zst"])
def test_files_of_a_tar_are_there_before_its_end_has_arrived(tmp_path: Path, case: str) -> None:
    noise = b"".join(struct.pack("<Q", i * 0x9E3779B97F4A7C15 % 2**64) for i in range(1 << 19))
    files = {"1/first": b"first", "1/second": noise}
    packs: dict[str, Callable[[bytes], bytes]] = {
        "tar": lambda content: content,
        "tar.gz": lambda content: gzip.compress(content, 1),
        "tar.zst": zst,
    }
    content = packs[case](tarred(files, "w"))
    arriving = Arriving(content, there=len(content) // 2)
    with pytest.raises(UnreachableError):
        run(tmp_path, arriving, f"1.{case}", size=len(content))
    assert (tmp_path / "tree/1/first").read_bytes() == b"first"
    starts = [start for start, _ in arriving.asked]
    assert starts == sorted(starts)


def test_a_zip_is_read_from_its_directory_and_then_in_its_order(tmp_path: Path) -> None:
    files = {f"1/{i}": bytes([i]) * 100_000 for i in range(9)}
    content = zip_of(*map(Entry, files, files.values()))
    arriving = Arriving(content, there=len(content))
    assert contents(run(tmp_path, arriving, "1.zip", size=len(content))) == files
    starts = [start for start, _ in arriving.asked]
    end, directory, *entries = starts
    assert end > 800_000
    assert directory > 900_000
    assert entries == sorted(entries)
    assert entries[0] == 0


def test_what_reading_raises_comes_through(tmp_path: Path) -> None:
    content = zipped(FILES)
    with pytest.raises(UnreachableError, match="did not come"):
        run(tmp_path, Arriving(content, there=10), "1.zip", size=len(content))


def peak(act: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("case", ["zip", "tar", "tar.gz", "tar.zst"])
def test_memory_does_not_grow_with_the_files(tmp_path: Path, case: str) -> None:
    files = {"1/zeros": bytes(50 << 20)}
    packs: dict[str, Callable[[], bytes]] = {
        "zip": lambda: zipped(files),
        "tar": lambda: tarred(files, "w"),
        "tar.gz": lambda: tarred(files),
        "tar.zst": lambda: zst(tarred(files, "w")),
    }
    packed = tmp_path / "packed"
    packed.write_bytes(packs[case]())
    with packed.open("rb") as bundle:
        used = peak(lambda: run(tmp_path, bundle, f"1.{case}", size=packed.stat().st_size))
    assert used < 8 << 20
