"""kopf, without the packages that it imports for other operators than this one.

Where the ``kubernetes`` package is installed, kopf imports all of it, 30 MB, to recognise its
models in what handlers return. No handler here returns any.
"""

from __future__ import annotations

import sys
from typing import Any, Final

_PACKAGE: Final = "kubernetes"

_modules: dict[str, Any] = sys.modules
_present = _modules.get(_PACKAGE)
# What Python's import system takes for "there is no such module".
_modules[_PACKAGE] = None
try:
    import kopf
finally:
    del _modules[_PACKAGE]
    if _present is not None:
        _modules[_PACKAGE] = _present

__all__ = ["kopf"]
