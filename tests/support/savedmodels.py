"""Small real SavedModels: ``y = 0.5 x + offset``, so that the answer tells the version.

Building one imports tensorflow, so it happens once, in a process of its own, and the files
are kept for the whole test run.
"""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_BUILD = """
import sys
import tensorflow as tf

class Linear(tf.Module):
    def __init__(self, offset):
        self.a = tf.Variable(0.5)
        self.b = tf.Variable(float(offset))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def predict(self, x):
        return {"y": self.a * x + self.b}

for offset in sys.argv[2:]:
    model = Linear(offset)
    tf.saved_model.save(
        model, f"{sys.argv[1]}/{offset}", signatures={"serving_default": model.predict}
    )
"""


def build(directory: Path, *offsets: int) -> dict[int, Path]:
    """Export one SavedModel an offset; returns their folders by offset."""
    subprocess.run(
        [sys.executable, "-c", _BUILD, str(directory), *map(str, offsets)],
        check=True,
        capture_output=True,
        timeout=180,
    )
    return {offset: directory / str(offset) for offset in offsets}


def contents(directory: Path, *offsets: int) -> dict[int, dict[str, bytes]]:
    """The same SavedModels as `files` has them."""
    return {offset: files(folder) for offset, folder in build(directory, *offsets).items()}


def files(model: Path) -> dict[str, bytes]:
    """A SavedModel's files by their path below it, as they are uploaded to a bucket."""
    return {
        path.relative_to(model).as_posix(): path.read_bytes()
        for path in sorted(model.rglob("*"))
        if path.is_file()
    }


def unloadable(entries: dict[str, bytes]) -> dict[str, bytes]:
    """The same files, whole as far as files tell, with an operation that no TensorFlow knows."""
    graph = entries["saved_model.pb"]
    changed = graph.replace(b"AddV2", b"AddV9")
    assert changed != graph
    return {**entries, "saved_model.pb": changed}


def archive(entries: dict[str, bytes], *, folder: str) -> bytes:
    """A zip that holds the entries below ``folder``."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in entries.items():
            packed.writestr(f"{folder}/{name}" if folder else name, content)
    return buffer.getvalue()
