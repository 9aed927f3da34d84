"""Operations that TensorFlow Serving is built with, and TensorFlow's own package leaves out.

They come with packages of their own, whose libraries are loaded where they are installed, without
the packages' Python. (tensorflow_serving/model_servers/BUILD, SUPPORTED_TENSORFLOW_OPS.)
"""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

from development_model_server import tensorflow_c
from development_model_server.errors import ServingError

_logger = logging.getLogger(__name__)

PACKAGES = {
    "tensorflow_text": "python/**/_*.so",
    "tensorflow_decision_forests": "tensorflow/ops/inference/*.so",
}
"""Where each package has its libraries."""


def load() -> None:
    """Load what is installed; what can't be loaded, as of another TensorFlow, is told and left."""
    for package, pattern in PACKAGES.items():
        specification = importlib.util.find_spec(package)
        folders = specification.submodule_search_locations if specification else None
        libraries = sorted(path for folder in folders or () for path in Path(folder).glob(pattern))
        failures = []
        for library in libraries:
            try:
                tensorflow_c.load_operations(library)
            except ServingError as error:
                failures.append(error.message)
        if failures:
            _logger.warning(
                "%d of the %d libraries of %s can't be loaded, so models with its operations"
                " can't either: %s",
                len(failures),
                len(libraries),
                package,
                failures[0],
            )
        elif libraries:
            _logger.info("The operations of %s are there", package)
