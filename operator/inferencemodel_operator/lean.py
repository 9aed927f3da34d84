"""kopf, without the packages that it imports for other operators than this one.

Where the ``kubernetes`` package is installed, kopf imports all of it to recognise its models in
what handlers return: 29 MB and 440 modules more (`import kopf` takes 71 MB, this module 42). No
handler here returns any. kopf has no setting for it, and takes an absent package for what it is; so
while kopf is imported, and no longer, a finder (`sys.meta_path`, which decides what can
be imported) says that the package is not there. Nothing that is imported already is touched. The
image has the package for those who run the operator by a kubeconfig (`access`).
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class _Absent(MetaPathFinder):
    """Finds that one package is not there."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if fullname.partition(".")[0] == self._package:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return None


@contextmanager
def _without(package: str) -> Iterator[None]:
    finder = _Absent(package)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


with _without("kubernetes"):
    import kopf

__all__ = ["kopf"]
