"""Which kubeconfig files there are, and what of them is meant.

The rules are those of k8s.io/client-go/tools/clientcmd/loader.go: KUBECONFIG without a value is as
good as none, a file that is not there counts for nothing, and of several files the first that says
something prevails.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_DEFAULT: Final = "~/.kube/config"
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def paths(kubeconfig: Path | None) -> list[str]:
    """The file that is named, those of the environment, or the default one; there or not."""
    if kubeconfig is not None:
        return [str(kubeconfig)]
    given = os.environ.get("KUBECONFIG") or _DEFAULT
    return [path for path in given.split(os.pathsep) if path]


def read(path: str) -> Any:
    """What is in a file.

    Raises:
        OSError: it can't be read.
        YAMLError, UnicodeError, RecursionError: it can't be understood.
    """
    with Path(path).expanduser().open("rb") as file:
        return yaml.load(file, Loader=_LOADER)  # noqa: S506  # it is a safe one


@dataclass(frozen=True)
class Chosen:
    """What is meant of the files that are there; their shape is taken for granted."""

    contents: Mapping[str, Any]
    """By path, of each that says something."""
    name: str | None
    """The context's; None where none is named."""

    @property
    def files(self) -> str:
        """The paths, as KUBECONFIG has them."""
        return os.pathsep.join(self.contents)

    @property
    def context(self) -> dict[str, Any]:
        """The context; empty where there is none of that name."""
        return self._named("context", str(self.name))

    @property
    def impersonation(self) -> tuple[tuple[str, str], ...]:
        """The headers by which its user acts as somebody else."""
        return tuple(_impersonation(self._named("user", str(self.context.get("user")))))

    def _named(self, kind: str, name: str) -> dict[str, Any]:
        contents = self.contents.values()
        items = (item for content in contents for item in content.get(f"{kind}s") or ())
        return next((item.get(kind) or {} for item in items if item["name"] == name), {})


def chosen(kubeconfig: Path | None, context: str | None = None) -> Chosen:
    """What is meant where a file and a context are named, or none; raises what `read` does."""
    there = [path for path in paths(kubeconfig) if Path(path).expanduser().exists()]
    every = {path: read(path) for path in there}
    contents = {path: content for path, content in every.items() if content is not None}
    if context is None:
        names = (content.get("current-context") for content in contents.values())
        context = next(filter(None, names), None)
    return Chosen(contents, context)


def _impersonation(user: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """As Kubernetes has it ("User impersonation")."""
    if user.get("as"):
        yield "Impersonate-User", str(user["as"])
    if user.get("as-uid"):
        yield "Impersonate-Uid", str(user["as-uid"])
    for group in user.get("as-groups") or ():
        yield "Impersonate-Group", str(group)
    for key, values in (user.get("as-user-extra") or {}).items():
        for value in values:
            yield f"Impersonate-Extra-{_header(key)}", str(value)


def _header(key: str) -> str:
    return quote(key, safe="!#$&'*+^`|")
