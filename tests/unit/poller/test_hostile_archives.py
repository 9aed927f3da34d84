"""Archives that want to do harm, lie, or are damaged: each is refused, with the right reason."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import zipfile
from functools import partial
from typing import TYPE_CHECKING

import pytest
import zstandard

from model_poller.archives.archive import Limits, find_model, unpack
from model_poller.errors import BrokenVersionError, InsufficientDiskError
from model_poller.status import VersionReason
from tests.unit.poller.doubles import below, model, tarred, zipped
from tests.unit.poller.packing import (
    DEFLATED,
    FULL,
    Entry,
    deflate,
    extra_64,
    file,
    header,
    long_name,
    padded,
    pax,
    record,
    tar_of,
    zip_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

UNSAFE = VersionReason.UNSAFE_ARCHIVE
BAD = VersionReason.BAD_ARCHIVE
LARGE = VersionReason.ARCHIVE_TOO_LARGE
NO_MODEL = VersionReason.MISSING_SAVED_MODEL

LIMITS = Limits(entries=50, expanded_bytes=300 << 20, ratio=200)
BEYOND_RATIO = 80 << 20
WHOLE = below("1", model(b"weights" * 100))
ACCENT, TWO_MARKS = "1/caf\u00e9", "1/cafe\u0301"


def names(*several: str | bytes) -> bytes:
    return zip_of(*(Entry(name, b"" if name[-1:] in ("/", b"/") else b"x") for name in several))


def damaged(content: bytes, at: bytes) -> bytes:
    place = content.index(at) + len(at) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def zst(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(content)


def zst_of_window(log: int) -> bytes:
    packer = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=log)
    ).compressobj()
    return packer.compress(tar_of(file())) + packer.flush()


def zst_that_says(size: int) -> bytes:
    """A frame whose header tells a size, in 8 bytes: descriptor 0xc0 (RFC 8878, 3.1.1.1)."""
    return b"\x28\xb5\x2f\xfd\xc0\x58" + struct.pack("<Q", size) + b"\x01\x00\x00"


def zst_of_blocks(*contents: bytes) -> bytes:
    """A frame of blocks that are not compressed (RFC 8878, 3.1.1.2)."""
    blocks = b"".join(struct.pack("<L", len(c) << 3)[:3] + c for c in contents)
    return b"\x28\xb5\x2f\xfd\x00\x58" + blocks + b"\x01\x00\x00"


def zst_of_zeros(blocks: int) -> bytes:
    """Blocks of one repeated byte: 128 KiB from 4 bytes each."""
    run = struct.pack("<L", 128 << 10 << 3 | 1 << 1)[:3] + b"\0"
    return b"\x28\xb5\x2f\xfd\x00\x58" + run * blocks + b"\x01\x00\x00"


def quoted_overlap() -> bytes:
    """The first entry's bytes are the second entry, header and all: a bomb without nesting."""
    inner = zip_of(Entry("1/b", b"x" * 100))
    quoted = inner[: inner.index(b"PK\x01\x02")]
    at = len(zip_of(Entry("1/a", b"")).partition(b"PK\x01\x02")[0])
    return zip_of(
        Entry("1/a", quoted), Entry("1/b", b"x" * 100, packed=b"", both={"stored": 100}, offset=at)
    )


def quoted_in_an_extra_field() -> bytes:
    inner = zip_of(Entry("1/b"))
    quoted = bytes(4) + inner[: inner.index(b"PK\x01\x02")]
    return zip_of(
        Entry("1/a", local={"extra": quoted}),
        Entry("1/b", packed=b"", both={"stored": 1}, offset=30 + len("1/a") + 4),
    )


def packed_of(pack: Callable[[bytes], bytes], plain: Callable[[], bytes]) -> bytes:
    return pack(plain())


TAR = tar_of(file("1/saved_model.pb", b"graph" * 200))
ZIPS: dict[str, tuple[Callable[[], bytes], VersionReason]] = {
    # Names.
    "parent path": (lambda: names("../evil"), UNSAFE),
    "parent path within": (lambda: names("1/../../evil"), UNSAFE),
    "parent path that stays inside": (lambda: names("1/x/../y"), UNSAFE),
    "parent folder": (lambda: names("../evil/"), UNSAFE),
    "two dots at the end": (lambda: names("1/.."), UNSAFE),
    "absolute path": (lambda: names("/etc/evil"), UNSAFE),
    "absolute path behind a dot": (lambda: names(".//etc/evil"), UNSAFE),
    "absolute folder": (lambda: names("/etc/"), UNSAFE),
    "nothing but a slash": (lambda: names("/"), UNSAFE),
    "double slash": (lambda: names("1//evil"), UNSAFE),
    "backslashes": (lambda: names("1\\..\\..\\evil"), UNSAFE),
    "drive letter": (lambda: names("C:\\evil"), UNSAFE),
    "NUL in a name": (lambda: names("1/a\0b"), UNSAFE),
    "NUL that hides an ending": (lambda: names("1/saved_model.pb\0.txt"), UNSAFE),
    "newline in a name": (lambda: names("1/a\nb"), UNSAFE),
    "escape sequence in a name": (lambda: names("1/\x1b[2Jevil"), UNSAFE),
    "empty name": (lambda: names(""), UNSAFE),
    "dot as a name": (lambda: names("1/./x"), UNSAFE),
    "long component": (lambda: names("1/" + "a" * 300), UNSAFE),
    "long component in few letters": (lambda: names("1/" + "\U0001f600" * 64), UNSAFE),
    "long path": (lambda: names("/".join(["a" * 200] * 8)), UNSAFE),
    "deep path": (lambda: names("/".join(["a"] * 40)), UNSAFE),
    "very deep folder": (lambda: names("a/" * 30_000), UNSAFE),
    # Twins.
    "the same name twice": (lambda: names("1/a", "1/a"), UNSAFE),
    "the same name with and without a dot": (lambda: names("1/a", "./1/a"), UNSAFE),
    "names that differ by case": (lambda: names("1/a", "1/A"), UNSAFE),
    "folders that differ by case": (lambda: names("1/a/x", "1/A/y"), UNSAFE),
    "case beyond ASCII": (lambda: names("1/stra\u00dfe", "1/STRASSE"), UNSAFE),
    "accents encoded in two ways": (lambda: names(ACCENT, TWO_MARKS), UNSAFE),
    "folders with accents in two ways": (lambda: names(f"{ACCENT}/a", f"{TWO_MARKS}/b"), UNSAFE),
    "accent and case": (lambda: names(ACCENT.upper(), TWO_MARKS), UNSAFE),
    "a file that is a folder too": (lambda: names("1/a", "1/a/b"), UNSAFE),
    "a folder that is a file too": (lambda: names("1/a/b", "1/a"), UNSAFE),
    "a folder entry over a file": (lambda: names("1/a", "1/a/"), UNSAFE),
    "a file over a folder by case": (lambda: names("1/a/b", "1/A"), UNSAFE),
    # Kinds.
    "symbolic link": (lambda: zip_of(Entry("1/l", b"/etc", mode=stat.S_IFLNK | 0o777)), UNSAFE),
    "a file through a symbolic link": (
        lambda: zip_of(Entry("1/l", b"/tmp", mode=stat.S_IFLNK | 0o777), Entry("1/l/evil")),
        UNSAFE,
    ),
    "device": (lambda: zip_of(Entry("1/null", b"", mode=stat.S_IFCHR | 0o666)), UNSAFE),
    "named pipe": (lambda: zip_of(Entry("1/pipe", b"", mode=stat.S_IFIFO | 0o666)), UNSAFE),
    "socket": (lambda: zip_of(Entry("1/socket", b"", mode=stat.S_IFSOCK | 0o666)), UNSAFE),
    "a folder named like a file": (lambda: zip_of(Entry("1/a", b"", mode=stat.S_IFDIR)), UNSAFE),
    "a file named like a folder": (lambda: zip_of(Entry("1/a/", b"", mode=stat.S_IFREG)), UNSAFE),
    "a folder with content": (lambda: zip_of(Entry("1/a/", b"content")), BAD),
    "encrypted": (lambda: zip_of(Entry("1/a", flags=0x1)), UNSAFE),
    "strongly encrypted": (lambda: zip_of(Entry("1/a", flags=0x40)), UNSAFE),
    "encrypted only by its own header": (lambda: zip_of(Entry("1/a", local={"flags": 1})), BAD),
    "compressed in an unknown way": (lambda: zip_of(Entry("1/a", method=14)), BAD),
    # Entries in the same bytes.
    "two entries of the same bytes": (lambda: zip_of(Entry("1/a"), Entry("1/b", offset=0)), UNSAFE),
    "an entry that quotes the next": (quoted_overlap, UNSAFE),
    "an entry that reaches into the directory": (
        lambda: zip_of(Entry("1/a", both={"stored": 60, "expanded": 60})),
        UNSAFE,
    ),
    "an entry that quotes the next in its extra field": (quoted_in_an_extra_field, UNSAFE),
    "an entry beyond the end": (lambda: zip_of(Entry("1/a", offset=1 << 30)), UNSAFE),
    "an entry in the directory": (lambda: zip_of(Entry("1/a", offset=40)), UNSAFE),
    # Directory and header disagree.
    "another name in its own header": (lambda: zip_of(Entry("1/a", local={"name": b"1/b"})), BAD),
    "another method in its own header": (
        lambda: zip_of(Entry("1/a", local={"method": DEFLATED})),
        BAD,
    ),
    "another size in its own header": (lambda: zip_of(Entry("1/a", local={"expanded": 9})), BAD),
    "another checksum in its own header": (
        lambda: zip_of(Entry("1/a", local={"checksum": 9})),
        BAD,
    ),
    "no header where the entry should be": (
        lambda: zip_of(Entry("1/a", local={"signature": b"PK\x07\x08"})),
        BAD,
    ),
    # Sizes and checksums.
    "declared smaller than it is": (
        lambda: zip_of(Entry("1/a", b"a" * 999, method=DEFLATED, both={"expanded": 10})),
        BAD,
    ),
    "declared larger than it is": (
        lambda: zip_of(Entry("1/a", b"a" * 999, method=DEFLATED, both={"expanded": 10_000})),
        BAD,
    ),
    "two sizes of what is not compressed": (
        lambda: zip_of(Entry("1/a", b"a" * 9, both={"expanded": 10})),
        BAD,
    ),
    "compressed bytes behind the end of an entry": (
        lambda: zip_of(Entry("1/a", b"a", method=DEFLATED, packed=deflate(b"a") + b"more")),
        BAD,
    ),
    "compressed bytes that end early": (
        lambda: zip_of(Entry("1/a", b"ab" * 99, method=DEFLATED, packed=deflate(b"ab" * 99)[:-2])),
        BAD,
    ),
    "compressed bytes that are none": (
        lambda: zip_of(Entry("1/a", b"a", method=DEFLATED, packed=b"\xff\xff\xff")),
        BAD,
    ),
    "wrong checksum": (lambda: zip_of(Entry("1/a", both={"checksum": 1})), BAD),
    "damaged content": (
        lambda: damaged(zip_of(Entry("1/a", b"weights" * 9)), b"weightsweights"),
        BAD,
    ),
    # zip64.
    "zip64: an expanded size that is none": (
        lambda: zip_of(Entry("1/a", both={"expanded": FULL}, extra=extra_64(1 << 60))),
        BAD,
    ),
    "zip64: a deflated entry of exabytes": (
        lambda: zip_of(
            Entry(
                "1/a",
                method=DEFLATED,
                both={"expanded": FULL, "stored": FULL},
                extra=extra_64(1 << 60, 3),
            )
        ),
        LARGE,
    ),
    "zip64: an offset beyond the end": (
        lambda: zip_of(Entry("1/a", central={"offset": FULL, "extra": extra_64(1 << 60)})),
        UNSAFE,
    ),
    "zip64: a size without its field": (lambda: zip_of(Entry("1/a", both={"stored": FULL})), BAD),
    "zip64: a size cut short": (
        lambda: zip_of(
            Entry("1/a", both={"stored": FULL, "expanded": FULL}, extra=b"\1\0\4\0\1\0\0\0")
        ),
        BAD,
    ),
    "zip64: two counts": (lambda: zip_of(Entry("1/a"), zip64={}, count=2, here=2), BAD),
    "zip64: more entries than there are": (
        lambda: zip_of(Entry("1/a"), zip64={"count": 9, "here": 9}),
        BAD,
    ),
    "zip64: exabytes of entries": (
        lambda: zip_of(Entry("1/a"), zip64={"count": 1 << 60, "here": 1 << 60}),
        LARGE,
    ),
    "zip64: a directory of exabytes": (
        lambda: zip_of(Entry("1/a"), zip64={"length": 1 << 60}),
        BAD,
    ),
    "zip64: its end elsewhere": (
        lambda: zip_of(Entry("1/a"), zip64={}).replace(b"PK\x06\x06", b"PK\x06\x05"),
        BAD,
    ),
    # Counts and parts.
    "too many entries": (lambda: names(*[f"1/{i}" for i in range(60)]), LARGE),
    "more entries than it says": (lambda: zip_of(Entry("1/a"), Entry("1/b"), count=1, here=1), BAD),
    "fewer entries than it says": (lambda: zip_of(Entry("1/a"), count=9, here=9), BAD),
    "one of several parts": (lambda: zip_of(Entry("1/a"), disk=1, directory_disk=1), BAD),
    "an entry in another part": (lambda: zip_of(Entry("1/a", central={"disk": 3})), BAD),
    "a damaged directory": (
        lambda: zip_of(Entry("1/a", central={"signature": b"PK\x01\x03"})),
        BAD,
    ),
    # Bombs.
    "bomb": (lambda: zipped({"1/zeros": bytes(BEYOND_RATIO)}), LARGE),
    "bomb of many files": (
        lambda: zipped({f"1/{i}": bytes(BEYOND_RATIO // 40) for i in range(40)}),
        LARGE,
    ),
    "beyond the expanded size": (
        lambda: zip_of(Entry("1/a", both={"expanded": 301 << 20}, method=DEFLATED)),
        LARGE,
    ),
    # Around it.
    "bytes before it": (lambda: zip_of(Entry("1/a"), before=b"#!/bin/sh\n")[10:], BAD),
    "a program before it": (lambda: b"#!/bin/sh\n" + names("1/a"), BAD),
    "bytes behind it": (lambda: names("1/a") + b"more", BAD),
    "zeros and more behind it": (lambda: names("1/a") + bytes(9) + b"a", BAD),
    "bytes between directory and end": (lambda: zip_of(Entry("1/a"), between=b"junk"), BAD),
    "a comment longer than it says": (lambda: zip_of(Entry("1/a"), comment=b"a", after=b"b"), BAD),
    "two archives in one": (lambda: names("1/a") + names("1/b"), BAD),
    "an archive hidden in a comment": (
        lambda: zip_of(Entry("1/a"), comment=names("1/evil")),
        BAD,
    ),
    "cut": (lambda: zipped(WHOLE)[:-100], BAD),
    "cut by one byte": (lambda: zipped(WHOLE)[:-1], BAD),
    "without its first bytes": (lambda: zipped(WHOLE)[100:], BAD),
    "cut to its first half": (lambda: zipped(WHOLE)[: len(zipped(WHOLE)) // 2], BAD),
    "no archive": (lambda: b"not an archive at all", BAD),
    "no byte": (lambda: b"", BAD),
    "a tar called zip": (lambda: tarred(WHOLE), BAD),
    # Contents.
    "no entry": (lambda: zip_of(), NO_MODEL),
    "no model": (lambda: names("readme.txt"), NO_MODEL),
    "an empty folder of its number": (lambda: names("1/"), NO_MODEL),
    "the model one folder too deep": (lambda: zipped(below("models/1", model())), NO_MODEL),
    "another version": (lambda: zipped(below("0002", model())), BAD),
    "two versions": (lambda: zipped({**below("1", model()), **below("2", model())}), NO_MODEL),
}

TARS: dict[str, tuple[Callable[[], bytes], VersionReason]] = {
    # Names.
    "parent path": (lambda: tar_of(file("../evil")), UNSAFE),
    "parent path by the prefix": (lambda: tar_of(file("evil", prefix=b"..")), UNSAFE),
    "absolute path": (lambda: tar_of(file("/etc/evil")), UNSAFE),
    "absolute path by the prefix": (lambda: tar_of(file("evil", prefix=b"/etc")), UNSAFE),
    "empty name": (lambda: tar_of(file("")), UNSAFE),
    "name that is no Unicode": (lambda: tar_of(file(b"1/\xff\xfe")), UNSAFE),
    "parent folder": (lambda: tar_of(header("../evil", kind=b"5")), UNSAFE),
    "a file with a slash at its end": (lambda: tar_of(file("1/a/")), UNSAFE),
    "the same name twice": (lambda: tar_of(file("1/a"), file("1/a")), UNSAFE),
    "the same name with a dot": (lambda: tar_of(file("1/a"), file("./1/a")), UNSAFE),
    "names that differ by case": (lambda: tar_of(file("1/a"), file("1/A")), UNSAFE),
    "accents encoded in two ways": (lambda: tar_of(file(ACCENT), file(TWO_MARKS)), UNSAFE),
    "a file under a file": (lambda: tar_of(file("1/a"), file("1/a/b")), UNSAFE),
    # Kinds.
    "symbolic link": (lambda: tar_of(header("1/l", kind=b"2")), UNSAFE),
    "a file through a symbolic link": (
        lambda: tar_of(header("1/l", kind=b"2"), file("1/l/evil")),
        UNSAFE,
    ),
    "hard link": (lambda: tar_of(header("1/l", kind=b"1")), UNSAFE),
    "hard link with content": (lambda: tar_of(file("1/l", kind=b"1")), UNSAFE),
    "character device": (lambda: tar_of(header("1/d", kind=b"3")), UNSAFE),
    "block device": (lambda: tar_of(header("1/d", kind=b"4")), UNSAFE),
    "named pipe": (lambda: tar_of(header("1/p", kind=b"6")), UNSAFE),
    "sparse file": (lambda: tar_of(header("1/s", kind=b"S")), UNSAFE),
    "sparse file by pax": (
        lambda: tar_of(pax(GNU__sparse__map="0,1", GNU__sparse__size="9" * 15), file("1/s")),
        UNSAFE,
    ),
    "an unknown kind": (lambda: tar_of(header("1/u", kind=b"Z")), UNSAFE),
    "a volume's label": (lambda: tar_of(header("1/v", kind=b"V")), UNSAFE),
    "a file continued from elsewhere": (lambda: tar_of(header("1/m", kind=b"M")), UNSAFE),
    "a folder with content": (lambda: tar_of(file("1/a", kind=b"5")), BAD),
    # Extended headers.
    "pax: a path outside": (lambda: tar_of(pax(path="../evil"), file("1/a")), UNSAFE),
    "pax: an absolute path": (lambda: tar_of(pax(path="/etc/evil"), file("1/a")), UNSAFE),
    "pax: an empty path": (lambda: tar_of(pax(path=""), file("1/a")), UNSAFE),
    "pax: a path with a NUL": (lambda: tar_of(pax(path="1/a\0b"), file("1/a")), UNSAFE),
    "pax: a path that is no Unicode": (lambda: tar_of(pax(path=b"1/\xff"), file("1/a")), UNSAFE),
    "pax: a smaller size": (lambda: tar_of(pax(size="1"), file("1/a", b"x" * 600)), BAD),
    "pax: a larger size": (lambda: tar_of(pax(size="999999"), file("1/a")), BAD),
    "pax: a size of exabytes": (lambda: tar_of(pax(size=str(1 << 60)), file("1/a")), LARGE),
    "pax: a negative size": (lambda: tar_of(pax(size="-1"), file("1/a")), BAD),
    "pax: a size that is none": (lambda: tar_of(pax(size="one"), file("1/a")), BAD),
    "pax: a size in other digits": (lambda: tar_of(pax(size="\u0661"), file("1/a")), BAD),
    "pax: a size beyond all": (lambda: tar_of(pax(size="9" * 20), file("1/a")), LARGE),
    "pax: a size of a million digits": (lambda: tar_of(pax(size="9" * 60_000), file("1/a")), BAD),
    "pax: a header for all that names one": (
        lambda: tar_of(pax(b"g", path="1/evil"), file("1/a")),
        BAD,
    ),
    "pax: a header for all that sizes one": (
        lambda: tar_of(pax(b"g", size="1"), file("1/a"), file("1/b")),
        BAD,
    ),
    "pax: a record longer than the header": (
        lambda: tar_of(header("pax", 9, b"x") + padded(b"99 path=a"), file("1/a")),
        BAD,
    ),
    "pax: a record without a length": (
        lambda: tar_of(header("pax", 6, b"x") + padded(b"path=a"), file("1/a")),
        BAD,
    ),
    "pax: a record of no bytes": (
        lambda: tar_of(header("pax", 9, b"x") + padded(b"0 path=a\n"), file("1/a")),
        BAD,
    ),
    "pax: a record without a value": (
        lambda: tar_of(header("pax", 7, b"x") + padded(b"7 path\n"), file("1/a")),
        BAD,
    ),
    "pax: one keyword twice": (
        lambda: tar_of(header("pax", 24, b"x") + padded(record(b"path", b"1/a") * 2), file("1/a")),
        BAD,
    ),
    "pax: two headers for one entry": (
        lambda: tar_of(pax(path="1/a"), pax(path="1/b"), file("1/c")),
        BAD,
    ),
    "pax: thousands of headers": (lambda: tar_of(pax(comment="x") * 5000, file("1/a")), BAD),
    "pax: a header of gigabytes": (lambda: tar_of(header("pax", 4 << 30, b"x"), file()), BAD),
    "pax: a header of many kilobytes": (
        lambda: tar_of(pax(comment="x" * 70_000), file("1/a")),
        BAD,
    ),
    "pax: a header and no entry": (lambda: tar_of(pax(path="1/a")), BAD),
    "GNU: a long name outside": (lambda: tar_of(long_name(b"../evil"), file("1/a")), UNSAFE),
    "GNU: a long name with a NUL": (lambda: tar_of(long_name(b"1/a\0b"), file("1/a")), UNSAFE),
    "GNU: a name longer than any": (lambda: tar_of(long_name(b"a/" * 999), file("1/a")), UNSAFE),
    "GNU: thousands of long names": (lambda: tar_of(long_name(b"1/a") * 5000, file("1/b")), BAD),
    "GNU: a long name of gigabytes": (lambda: tar_of(header("L", 4 << 30, b"L"), file()), BAD),
    "GNU: a long name and a pax path": (
        lambda: tar_of(long_name(b"1/a"), pax(path="1/b"), file("1/c")),
        BAD,
    ),
    "GNU: a long link": (lambda: tar_of(header("L", 0, b"K"), file("1/a")), UNSAFE),
    # Sizes.
    "negative size": (lambda: tar_of(header(size=b"\xff" * 12)), BAD),
    "negative size in digits": (lambda: tar_of(header(size=b"-0000000001\0")), BAD),
    "a size that is none": (lambda: tar_of(header(size=b"abcdefghijk\0")), BAD),
    "a size of exabytes": (lambda: tar_of(header(size=b"\x80" + b"\xff" * 11)), LARGE),
    "a size of gigabytes": (lambda: tar_of(header(size=4 << 30)), LARGE),
    "a size beyond the end": (lambda: tar_of(header(size=1 << 20)), BAD),
    "wrong checksum": (lambda: tar_of(file(checksum=1)), BAD),
    "too many entries": (lambda: tar_of(*(file(f"1/{i}") for i in range(60))), LARGE),
    "too many folders": (
        lambda: tar_of(*(header(f"1/{i}", kind=b"5") for i in range(60))),
        LARGE,
    ),
    # Around it.
    "no end": (lambda: tar_of(file(), end=b""), BAD),
    "cut in an entry": (lambda: tar_of(file("1/a", b"x" * 900))[:1000], BAD),
    "cut in a header": (lambda: TAR[:300], BAD),
    "bytes behind its end": (lambda: TAR + b"more", BAD),
    "two archives in one": (lambda: TAR + TAR, BAD),
    "an entry behind its end": (lambda: tar_of(file("1/a"), bytes(1024), file("1/evil")), BAD),
    "no archive": (lambda: b"not an archive" * 99, BAD),
    "no byte": (lambda: b"", BAD),
    "no entry": (lambda: tar_of(), NO_MODEL),
    "another version": (lambda: tarred(below("3", model()), "w"), BAD),
}

PACKED_TARS: dict[str, tuple[str, Callable[[], bytes], VersionReason]] = {
    "gz: bomb": ("gz", lambda: gzip.compress(tar_of(file("1/a", bytes(BEYOND_RATIO))), 1), LARGE),
    "gz: bomb in what is left out": (
        "gz",
        lambda: gzip.compress(tar_of(file("1/.DS_Store", bytes(BEYOND_RATIO))), 1),
        LARGE,
    ),
    "gz: bomb behind its end": (
        "gz",
        lambda: gzip.compress(TAR + bytes(BEYOND_RATIO), 1),
        LARGE,
    ),
    "gz: cut": ("gz", lambda: gzip.compress(TAR)[:-20], BAD),
    "gz: cut in its checksum": ("gz", lambda: gzip.compress(TAR)[:-1], BAD),
    "gz: wrong checksum": ("gz", lambda: damaged(gzip.compress(TAR), gzip.compress(TAR)[-8:]), BAD),
    "gz: wrong size": ("gz", lambda: gzip.compress(TAR)[:-4] + b"\1\0\0\0", BAD),
    "gz: bytes behind it": ("gz", lambda: gzip.compress(TAR) + b"more", BAD),
    "gz: zeros and more behind it": ("gz", lambda: gzip.compress(TAR) + bytes(9) + b"a", BAD),
    "gz: a member behind zeros": (
        "gz",
        lambda: gzip.compress(TAR) + bytes(9) + gzip.compress(b""),
        BAD,
    ),
    "zst: zeros and more behind it": ("zst", lambda: zst(TAR) + bytes(9) + b"a", BAD),
    "zst: a frame behind zeros": ("zst", lambda: zst(TAR) + bytes(4) + zst(b""), BAD),
    "gz: a second archive in a second member": (
        "gz",
        lambda: gzip.compress(TAR) + gzip.compress(TAR),
        BAD,
    ),
    "gz: the second of two members cut": (
        "gz",
        lambda: gzip.compress(TAR[:700]) + gzip.compress(TAR[700:])[:-9],
        BAD,
    ),
    "gz: no tar in it": ("gz", lambda: gzip.compress(b"hello"), BAD),
    "gz: packed twice": ("gz", lambda: gzip.compress(gzip.compress(TAR)), BAD),
    "gz: members without content for hours": (
        "gz",
        lambda: gzip.compress(b"") * 110_000 + gzip.compress(TAR),
        BAD,
    ),
    "gz: no byte": ("gz", lambda: b"", BAD),
    "gz: not packed": ("gz", lambda: TAR, BAD),
    "gz: packed with zstd": ("gz", lambda: zst(TAR), BAD),
    "gz: a zip": ("gz", lambda: zipped(WHOLE), BAD),
    "zst: bomb": ("zst", lambda: zst(tar_of(file("1/a", bytes(BEYOND_RATIO)))), LARGE),
    "zst: bomb of gigabytes in kilobytes": (
        "zst",
        lambda: zst_of_zeros(40_000),
        LARGE,
    ),
    "zst: a size of exabytes": ("zst", lambda: zst_that_says(1 << 62), LARGE),
    "zst: a size that is none": ("zst", lambda: zst_that_says(700), BAD),
    "zst: cut": ("zst", lambda: zst(TAR)[:-20], BAD),
    "zst: cut in its checksum": ("zst", lambda: zst(TAR)[:-1], BAD),
    "zst: wrong checksum": ("zst", lambda: damaged(zst(TAR), zst(TAR)[-3:]), BAD),
    "zst: bytes behind it": ("zst", lambda: zst(TAR) + b"more", BAD),
    "zst: few bytes behind it": ("zst", lambda: zst(TAR) + b"a", BAD),
    "zst: a second archive in a second frame": ("zst", lambda: zst(TAR) + zst(TAR), BAD),
    "zst: the second of two frames cut": (
        "zst",
        lambda: zst(TAR[:700]) + zst(TAR[700:])[:-1],
        BAD,
    ),
    "zst: a skipped part beyond the end": (
        "zst",
        lambda: zst(TAR) + b"\x50\x2a\x4d\x18" + struct.pack("<L", 1 << 31),
        BAD,
    ),
    "zst: nothing but a skipped part": (
        "zst",
        lambda: b"\x50\x2a\x4d\x18" + struct.pack("<L", 4) + b"skip",
        BAD,
    ),
    "zst: a window of gigabytes": ("zst", lambda: zst_of_window(30), BAD),
    "zst: a reserved block": ("zst", lambda: b"\x28\xb5\x2f\xfd\x00\x58\x07\x00\x00", BAD),
    "zst: a reserved header bit": ("zst", lambda: b"\x28\xb5\x2f\xfd\x08\x58\x01\x00\x00", BAD),
    "zst: a wanted dictionary": ("zst", lambda: b"\x28\xb5\x2f\xfd\x01\x58\x07\x01\x00\x00", BAD),
    "zst: blocks without content for hours": (
        "zst",
        lambda: zst_of_blocks(*[b""] * 110_000, TAR),
        BAD,
    ),
    "zst: a byte a block": (
        "zst",
        lambda: zst_of_blocks(TAR, *[b"\0"] * 110_000),
        BAD,
    ),
    "zst: no byte": ("zst", lambda: b"", BAD),
    "zst: not packed": ("zst", lambda: TAR, BAD),
    "zst: packed with gzip": ("zst", lambda: gzip.compress(TAR), BAD),
}

HOSTILE: dict[str, tuple[str, Callable[[], bytes], VersionReason]] = {
    **{f"zip: {case}": ("zip", *rest) for case, rest in ZIPS.items()},
    **{f"tar: {case}": ("tar", *rest) for case, rest in TARS.items()},
    **{
        f"{packed}: {case}": (f"tar.{packed}", partial(packed_of, pack, plain), reason)
        for packed, pack in (("tar.gz", gzip.compress), ("tar.zst", zst))
        for case, (plain, reason) in TARS.items()
    },
    **{
        case: (f"tar.{packed}", build, reason)
        for case, (packed, build, reason) in PACKED_TARS.items()
    },
}


def take(content: bytes, tree: Path, origin: str) -> None:
    unpack(
        io.BytesIO(content),
        len(content),
        tree,
        origin=origin,
        room=room,
        stopped=lambda: False,
        limits=LIMITS,
    )
    find_model(tree, 1, origin)


def room(needed: int) -> None:
    """A disk that has room for what the limits allow: a lie must not wait for more."""
    if needed > LIMITS.expanded_bytes:
        raise InsufficientDiskError("full", needed)


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_or_damaged_archive_is_refused_and_nothing_outside_is_touched(
    tmp_path: Path, case: str
) -> None:
    ending, build, reason = HOSTILE[case]
    (tmp_path / "victim").write_bytes(b"untouched")
    origin = f"gs://b/1.{ending}"
    with pytest.raises(BrokenVersionError) as caught:
        take(build(), tmp_path / "tree", origin)
    assert caught.value.reason is reason, str(caught.value)
    assert origin in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert {p.name for p in tmp_path.iterdir()} == {"victim", "tree"}
    assert (tmp_path / "victim").read_bytes() == b"untouched"
    for path in (tmp_path / "tree").rglob("*"):
        assert path.is_dir() or stat.S_ISREG(path.lstat().st_mode)
        assert path.lstat().st_nlink == 1 or path.is_dir()


def test_an_entry_that_is_longer_than_it_says_is_not_written_beyond_that(tmp_path: Path) -> None:
    content = bytes(20 << 20)
    lie = zip_of(Entry("1/a", content, method=DEFLATED, both={"expanded": 10}))
    with pytest.raises(BrokenVersionError, match="longer than it says"):
        take(lie, tmp_path / "tree", "1.zip")
    assert (tmp_path / "tree/1/a").stat().st_size < 2 << 20


def test_the_builders_make_good_archives_where_they_are_not_told_otherwise() -> None:
    """So that a hostile archive is refused for what is hostile in it."""
    entries = [Entry("1/a", b"a"), Entry("1/b", b"b" * 99, method=DEFLATED)]
    for content in (zip_of(*entries), zip_of(*entries, zip64={}, comment=b"fine")):
        with zipfile.ZipFile(io.BytesIO(content)) as bundle:
            assert bundle.testzip() is None
            assert bundle.namelist() == ["1/a", "1/b"]
    assert (
        zstandard.ZstdDecompressor().decompressobj().decompress(zst_of_blocks(b"a", b"b")) == b"ab"
    )
