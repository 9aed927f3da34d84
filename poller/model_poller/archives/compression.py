"""Decompressing a stream as it comes, a bounded piece at a time, to its very end."""

from __future__ import annotations

import re
import zlib
from typing import IO, TYPE_CHECKING

from model_poller.archives.unpacking import DamagedError, read_exactly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import zstandard

_READ_BYTES = 256 << 10
_PIECE_BYTES = 1 << 20
ZSTD_WINDOW_BYTES = 1 << 27
"""What zstd itself unpacks without being asked to take more memory (``--long=27``)."""
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
_ZSTD_RUN = 1
"""The type of a block that is one byte, repeated."""


def plain(bundle: IO[bytes]) -> Iterator[bytes]:
    """The bytes as they are."""
    while piece := bundle.read(_PIECE_BYTES):
        yield piece


def gunzip(bundle: IO[bytes]) -> Iterator[bytes]:
    """What gzip members hold, one after the other (RFC 1952); zlib checks each one's CRC-32.

    Raises:
        DamagedError: it is cut.
        zlib.error: it is damaged, or followed by something else.
    """
    data = bundle.read(_READ_BYTES)
    while True:
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            at_end = not data and not (data := bundle.read(_READ_BYTES))
            piece = member.decompress(data, _PIECE_BYTES)
            if at_end and not piece and not member.eof:
                raise DamagedError("it is cut inside a gzip member")
            data = member.unconsumed_tail
            yield piece
        data = member.unused_data or bundle.read(_READ_BYTES)
        if data[:1] in (b"", b"\0"):
            yield from _padding(data, bundle)
            return


def unzstd(bundle: IO[bytes], announce: Callable[[int], None]) -> Iterator[bytes]:
    """What zstd frames hold, one after the other (RFC 8878).

    ``announce`` gets the number of bytes that come out of a frame, where its header tells it.

    Goes from block to block, none of which expands to more than 128 KiB: the library's own readers
    take a cut stream for a whole one.

    Raises:
        DamagedError: it is cut, damaged, wants too much memory, or is followed by something else.
    """
    # Imported here: only this format needs it.
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
    magic = read_exactly(bundle, 4)
    while magic[:1].strip(b"\0"):
        if magic == _ZSTD_MAGIC:
            try:
                yield from _frame(bundle, decompressor, announce)
            except zstandard.ZstdError as error:
                raise DamagedError(str(error)) from error
        elif _ZSTD_SKIPPABLE.fullmatch(magic):
            yield from _skip(bundle, int.from_bytes(read_exactly(bundle, 4), "little"))
        else:
            raise DamagedError("it holds something else than zstd frames")
        magic = bundle.read(4)
    yield from _padding(magic, bundle)


def _frame(
    bundle: IO[bytes],
    decompressor: zstandard.ZstdDecompressor,
    announce: Callable[[int], None],
) -> Iterator[bytes]:
    import zstandard

    header = _ZSTD_MAGIC + read_exactly(bundle, 1)
    header += read_exactly(bundle, zstandard.frame_header_size(header) - len(header))
    parameters = zstandard.get_frame_parameters(header)
    if parameters.window_size > ZSTD_WINDOW_BYTES:
        raise DamagedError(
            f"unpacking it takes {parameters.window_size} bytes of memory; pack it with --long=27"
            " or less"
        )
    if parameters.content_size != zstandard.CONTENTSIZE_UNKNOWN:
        announce(parameters.content_size)
    frame = decompressor.decompressobj()
    yield frame.decompress(header)
    is_last = False
    while not is_last:
        head = read_exactly(bundle, 3)
        field = int.from_bytes(head, "little")
        is_last, kind, size = bool(field & 1), field >> 1 & 3, field >> 3
        yield frame.decompress(head + read_exactly(bundle, 1 if kind == _ZSTD_RUN else size))
    if parameters.has_checksum:
        yield frame.decompress(read_exactly(bundle, 4))


def _padding(piece: bytes, bundle: IO[bytes]) -> Iterator[bytes]:
    """Go to the end of the zeros with which tar fills up what it writes into a pipe."""
    while piece:
        if piece.strip(b"\0"):
            raise DamagedError("there is something else behind its end")
        yield b""
        piece = bundle.read(_READ_BYTES)


def _skip(bundle: IO[bytes], size: int) -> Iterator[bytes]:
    while size:
        piece = read_exactly(bundle, min(size, _READ_BYTES))
        size -= len(piece)
        yield b""
