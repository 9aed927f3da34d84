"""How this server says that it is not TensorFlow Serving itself."""

from __future__ import annotations

from importlib import metadata

from development_model_server import tensorflow_c

NAME = "development-model-server"
VERSION = "0.1.0"


def _version_of(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"


SERVER_HEADER = f"{NAME}/{VERSION}"


def version_text() -> str:
    """What ``--version`` prints."""
    serving = _version_of("tensorflow-serving-api")
    return (
        f"TensorFlow ModelServer: {serving}-{NAME}-{VERSION}\n"
        f"TensorFlow Library: {tensorflow_c.version()}\n"
    )


BANNER = (
    f"This is {NAME} {VERSION}: a stand-in that speaks TensorFlow Serving's API for development."
    " It is not TensorFlow Serving."
)
