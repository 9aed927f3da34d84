"""The file that ends the upload of a folder version: what it may be called."""

from __future__ import annotations

from typing import Final

from model_poller.archives.paths import MAX_COMPONENT_BYTES, is_noise
from model_poller.checks import manifest

_OF_MODELS: Final = frozenset(
    {
        "saved_model.pb",
        "saved_model.pbtxt",
        "fingerprint.pb",
        "keras_metadata.pb",
        "variables",
        "assets",
        "assets.extra",
        "debug",
        manifest.NAME,
        manifest.SIGNATURE_NAME,
    }
)
"""What a SavedModel holds by itself, so that it would tell nothing
(tensorflow/cc/saved_model/constants.h), and what comes with it."""


def fault(name: str) -> str | None:
    """What keeps a name from being a marker's; None for a good one."""
    if "/" in name or "\\" in name or name in ("", ".", ".."):
        return "can't be: a marker is a file name; it lies beside saved_model.pb"
    if not name.isprintable() or len(name.encode(errors="replace")) > MAX_COMPONENT_BYTES:
        return f"has characters that are not printed, or more than {MAX_COMPONENT_BYTES} bytes"
    if name.lower() in {known.lower() for known in _OF_MODELS}:
        return "is a name that models have without it; take one of its own, such as _SUCCESS"
    if is_noise(name):
        return "is a name that is left out of versions; take another one, such as _SUCCESS"
    return None
