"""Good archives, damaged at random: refused, or what comes out is what was packed."""

from __future__ import annotations

import gzip
import io
import tempfile
from pathlib import Path

import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from model_poller.archives.archive import Limits, find_model, unpack
from model_poller.errors import PollerError
from tests.unit.poller.doubles import below, model, tarred, zipped
from tests.unit.poller.packing import Entry, file, header, long_name, pax, record, tar_of, zip_of

FILES = below("1", {**model(b"some weights" * 30), "assets/words.txt": b"a\nb\n"})
LIMITS = Limits(entries=100, expanded_bytes=1 << 20)
TAR = tarred(FILES, "w")
PLAIN = {
    "zip": zipped(FILES),
    "tar": TAR,
    "tar.gz": gzip.compress(TAR),
    "tar.zst": zstandard.ZstdCompressor(write_checksum=True).compress(TAR),
}
TOUGH = {
    **PLAIN,
    "zip": zip_of(*map(Entry, FILES, FILES.values()), zip64={}, comment=b"PK\x05\x06"),
    "tar": tar_of(
        *(
            pax(path=name, size=str(len(content))) + file("short", content)
            for name, content in FILES.items()
        )
    ),
}


def unpacked(content: bytes, ending: str) -> dict[str, bytes] | None:
    """What came out; None: it was refused. Nothing else may have happened."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "inner", "tree")
        tree.parent.mkdir()
        try:
            unpack(
                io.BytesIO(content),
                len(content),
                tree,
                origin=f"1.{ending}",
                room=lambda _: None,
                stopped=lambda: False,
                limits=LIMITS,
            )
            find_model(tree, 1, "1.zip")
        except PollerError:
            return None
        finally:
            assert list(Path(folder).iterdir()) == [tree.parent]
            assert list(tree.parent.iterdir()) == [tree]
            assert all(p.is_dir() or p.is_file() for p in tree.rglob("*"))
            assert not any(p.is_symlink() for p in tree.rglob("*"))
        files = [path for path in tree.rglob("*") if path.is_file()]
        return {path.relative_to(tree).as_posix(): path.read_bytes() for path in files}


PLACES = st.integers(0, 2**16)
DAMAGES = st.lists(
    st.one_of(
        st.tuples(st.just("set"), PLACES, st.binary(min_size=1, max_size=8)),
        st.tuples(st.just("insert"), PLACES, st.binary(min_size=1, max_size=20)),
        st.tuples(st.just("cut"), PLACES, st.just(b"")),
        st.tuples(st.just("drop"), PLACES, st.binary(min_size=1, max_size=40)),
        st.tuples(st.just("repeat"), PLACES, st.binary(min_size=1, max_size=200)),
    ),
    min_size=1,
    max_size=3,
)


def damage(content: bytes, steps: list[tuple[str, int, bytes]]) -> bytes:
    for kind, place, data in steps:
        at = place % (len(content) + 1)
        match kind:
            case "set":
                content = content[:at] + data + content[at + len(data) :]
            case "insert":
                content = content[:at] + data + content[at:]
            case "cut":
                content = content[:at]
            case "drop":
                content = content[:at] + content[at + len(data) :]
            case "repeat":
                content = content[:at] + content[max(0, at - len(data)) :]
    return content


@settings(max_examples=400, deadline=None)
@given(ending=st.sampled_from(["zip", "tar.gz", "tar.zst"]), steps=DAMAGES)
def test_a_damaged_archive_with_checksums_is_refused_or_comes_out_unharmed(
    ending: str, steps: list[tuple[str, int, bytes]]
) -> None:
    assert unpacked(damage(PLAIN[ending], steps), ending) in (None, FILES)


@settings(max_examples=400, deadline=None)
@given(ending=st.sampled_from(sorted(TOUGH)), steps=DAMAGES)
def test_whatever_is_damaged_nothing_leaves_the_folder(
    ending: str, steps: list[tuple[str, int, bytes]]
) -> None:
    unpacked(damage(TOUGH[ending], steps), ending)


@settings(max_examples=200, deadline=None)
@given(steps=DAMAGES, pack=st.sampled_from(["tar.gz", "tar.zst"]))
def test_a_tar_that_was_damaged_before_it_was_packed_leaves_no_folder_either(
    steps: list[tuple[str, int, bytes]], pack: str
) -> None:
    content = damage(TOUGH["tar"], steps)
    packer = zstandard.ZstdCompressor().compress if pack == "tar.zst" else gzip.compress
    unpacked(packer(content), pack)


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=300), ending=st.sampled_from(sorted(PLAIN)))
def test_no_bytes_are_taken_for_an_archive_with_a_model(content: bytes, ending: str) -> None:
    assert not unpacked(content, ending)


NAMES = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from(["..", ".", "", "a", "A", "1", "e\u0301", "\u00e9", "\\", "~"])).map(
        "/".join
    ),
)


@settings(max_examples=400, deadline=None)
@given(names=st.lists(NAMES, min_size=1, max_size=4), kind=st.integers(0, 3))
def test_any_names_stay_below_their_folder_or_are_refused(names: list[str], kind: int) -> None:
    encoded = [name.encode(errors="surrogatepass") for name in names]
    short = [name[:100] for name in encoded]
    content, ending = (
        (zip_of(*(Entry(name, b"") for name in encoded)), "zip"),
        (tar_of(*(file(name, b"") for name in short)), "tar"),
        (tar_of(*(pax(path=name) + file("a", b"") for name in encoded)), "tar"),
        (tar_of(*(long_name(name) + file("a", b"") for name in encoded)), "tar"),
    )[kind]
    unpacked(content, ending)


@settings(max_examples=200, deadline=None)
@given(
    records=st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.tuples(
                st.sampled_from([b"path", b"size", b"comment", b"GNU.sparse.map"]),
                st.binary(max_size=20),
            ).map(lambda told: record(*told)),
        ),
        max_size=4,
    ),
    kind=st.sampled_from([b"x", b"g"]),
)
def test_any_extended_header_is_taken_or_refused(records: list[bytes], kind: bytes) -> None:
    content = b"".join(records)
    extended = header("pax", len(content), kind) + content + bytes(-len(content) % 512)
    unpacked(tar_of(extended, file("1/a.b", b"a")), "tar")
