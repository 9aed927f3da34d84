"""Images as OCI layouts: made to depend on nothing but their contents, put together, and read.

An archive of a release holds one image for each architecture, below one index, which is what its
name and its digest mean (https://github.com/opencontainers/image-spec).
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from release import archives
from release.errors import ReleaseError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_NAMES = ("org.opencontainers.image.ref.name", "io.containerd.image.name")
#: The version of buildah, which is nobody's business either.
_BUILT_BY = "io.buildah.version"
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


@dataclass(frozen=True)
class Image:
    """An image for one architecture: its blobs by digest (``sha256:…``), and its manifest's."""

    blobs: dict[str, bytes]
    digest: str

    @property
    def manifest(self) -> dict[str, Any]:
        """What it consists of."""
        return dict(json.loads(self.blobs[self.digest]))

    @property
    def config(self) -> dict[str, Any]:
        """How it is run, and what it was made of."""
        return dict(json.loads(self.blobs[self.manifest["config"]["digest"]]))

    @property
    def architecture(self) -> str:
        """Such as ``amd64``."""
        return str(self.config["architecture"])


@dataclass(frozen=True)
class Index:
    """The images of one name, for several architectures."""

    images: tuple[Image, ...]

    @property
    def content(self) -> bytes:
        """The index itself."""
        manifests = [
            {
                "mediaType": _MANIFEST,
                "digest": image.digest,
                "size": len(image.blobs[image.digest]),
                "platform": {"architecture": image.architecture, "os": image.config["os"]},
            }
            for image in sorted(self.images, key=lambda image: image.architecture)
        ]
        return _json({"schemaVersion": 2, "mediaType": _INDEX, "manifests": manifests})

    @property
    def digest(self) -> str:
        """What a cluster pulls it by."""
        return f"sha256:{archives.digest(self.content)}"

    def archive(self, name: str) -> bytes:
        """An archive of the index under a full name, such as ``ghcr.io/x/operator:1.2.3``."""
        top = {
            "mediaType": _INDEX,
            "digest": self.digest,
            "size": len(self.content),
            "annotations": dict.fromkeys(_NAMES, name),
        }
        blobs = {self.digest: self.content}
        for image in self.images:
            blobs |= image.blobs
        return _layout(top, blobs)


def read_layout(directory: Path) -> Image:
    """The one image of an OCI layout, as buildah writes it into a directory."""

    def blob(digest: str) -> bytes:
        return (directory / "blobs" / digest.replace(":", "/")).read_bytes()

    return _image(json.loads((directory / "index.json").read_text()), blob)


def read_archive(path: Path) -> list[Image]:
    """The images in an archive of a release, or of one architecture.

    Raises:
        ReleaseError: it is none.
    """
    try:
        with tarfile.open(path) as archive:

            def read(name: str) -> bytes:
                content = archive.extractfile(name)
                return content.read() if content else b""

            def blob(digest: str) -> bytes:
                return read(f"blobs/{digest.replace(':', '/')}")

            (top,) = json.loads(read("index.json"))["manifests"]
            if top["mediaType"] == _MANIFEST:
                return [_image({"manifests": [top]}, blob)]
            manifests = json.loads(blob(top["digest"]))["manifests"]
            return [_image({"manifests": [each]}, blob) for each in manifests]
    except (OSError, tarfile.TarError, KeyError, ValueError) as error:
        raise ReleaseError(f"{path} is no archive of an image of ours: {error}") from None


def _image(index: dict[str, Any], blob: Callable[[str], bytes]) -> Image:
    (top,) = index["manifests"]
    manifest = json.loads(blob(top["digest"]))
    parts = [top, manifest["config"], *manifest["layers"]]
    return Image({part["digest"]: blob(part["digest"]) for part in parts}, top["digest"])


def timeless(image: Image, epoch: int) -> Image:
    """The same image, with nothing in it that says when or how it was built.

    Args:
        image: any.
        epoch: seconds since 1970; no file is younger.
    """
    config = image.config
    layers = [
        _timeless_layer(_uncompressed(image.blobs[layer["digest"]]), epoch)
        for layer in image.manifest["layers"]
    ]
    packed = [archives.compressed(layer) for layer in layers]
    created = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    config["created"] = created
    config["rootfs"]["diff_ids"] = [f"sha256:{archives.digest(layer)}" for layer in layers]
    # How many steps there were is buildah's business; their times and containers are nobody's.
    config["history"] = [{"created": created, "created_by": "make release"} for _ in layers]
    config.pop("container", None)
    config["config"].get("Labels", {}).pop(_BUILT_BY, None)
    content = _json(config)
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _descriptor(_CONFIG, content),
        "layers": [_descriptor(_LAYER, layer) for layer in packed],
    }
    blobs = {_digest(part): part for part in (content, *packed, _json(manifest))}
    return Image(blobs, _digest(_json(manifest)))


def files(image: Image, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The contents of an image's files, by their paths without a leading slash.

    Args:
        image: any.
        wanted: says of a path whether it is of interest.
    """
    found: dict[str, bytes] = {}
    for layer in image.manifest["layers"]:
        content = _uncompressed(image.blobs[layer["digest"]])
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for entry in archive:
                path = entry.name.removeprefix("./").strip("/")
                folder, _, name = path.rpartition("/")
                if name == _OPAQUE:
                    found = {k: v for k, v in found.items() if not k.startswith(f"{folder}/")}
                elif name.startswith(_WHITEOUT):
                    gone = f"{folder}/{name.removeprefix(_WHITEOUT)}".strip("/")
                    found = {
                        k: v for k, v in found.items() if k != gone and not k.startswith(f"{gone}/")
                    }
                elif entry.isfile() and wanted(path):
                    stored = archive.extractfile(entry)
                    found[path] = stored.read() if stored else b""
    return found


def _timeless_layer(content: bytes, epoch: int) -> bytes:
    written = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(content)) as old,
        tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        # Parents come before what they hold, and what a hard link means before the link.
        for entry in sorted(old, key=lambda entry: (entry.islnk(), entry.name)):
            entry.mtime = min(int(entry.mtime), epoch)
            entry.uname = entry.gname = ""
            entry.pax_headers = {
                key: value
                for key, value in entry.pax_headers.items()
                if key.startswith("SCHILY.xattr.")
            }
            new.addfile(entry, old.extractfile(entry) if entry.isreg() else None)
    return written.getvalue()


def _uncompressed(layer: bytes) -> bytes:
    return gzip.decompress(layer) if layer[:2] == b"\x1f\x8b" else layer


def _layout(top: dict[str, Any], blobs: dict[str, bytes]) -> bytes:
    stored = {f"blobs/{digest.replace(':', '/')}": content for digest, content in blobs.items()}
    return archives.tar(
        {
            "index.json": _json({"schemaVersion": 2, "mediaType": _INDEX, "manifests": [top]}),
            "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
            **stored,
        }
    )


def _descriptor(kind: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "digest": _digest(content), "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{archives.digest(content)}"


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
