"""A tree and images, for tests."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from typing import Any

from release import oci
from release.tree import Tree

TREE = Tree("1.2.3", "a" * 40, 1_800_000_000, (), "## 1.2.3\n\n- A change.\n")


def layer(files: dict[str, bytes], mtime: float, *, level: int = 6) -> bytes:
    """A layer of an image; its files were all changed at the same time."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mtime = mtime
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(written.getvalue(), level, mtime=mtime)


def image(*layers: bytes, architecture: str = "amd64", created: str = "now") -> oci.Image:
    """An image of these layers, as a builder would have written it."""
    config = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "created": created,
            "config": {"User": "65532:65532"},
            "history": [{"created": created, "comment": "FROM 0123456789ab"}],
            "rootfs": {"type": "layers", "diff_ids": [_digest(gzip.decompress(x)) for x in layers]},
        }
    ).encode()
    manifest: dict[str, Any] = {
        "config": {"digest": _digest(config)},
        "layers": [{"digest": _digest(each)} for each in layers],
    }
    content = json.dumps(manifest).encode()
    blobs = {_digest(part): part for part in (config, *layers, content)}
    return oci.Image(blobs, _digest(content))


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
