"""Which kubeconfig files there are, and what of them is meant.

The rules are those of k8s.io/client-go/tools/clientcmd/loader.go: KUBECONFIG without a value is as
good as none, a file that is not there counts for nothing, and of several files the first that says
something prevails.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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


def existing(kubeconfig: Path | None) -> dict[str, Any]:
    """What is in each file that is there and says something; raises what `read` does."""
    there = [path for path in paths(kubeconfig) if Path(path).expanduser().exists()]
    contents = {path: read(path) for path in there}
    return {path: content for path, content in contents.items() if content is not None}


def current(contents: Sequence[Mapping[str, Any]]) -> str | None:
    """The context that is meant where none is named."""
    return next(filter(None, (content.get("current-context") for content in contents)), None)


def named(contents: Sequence[Mapping[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """The context, cluster or user of a name; empty where there is none."""
    items = (item for content in contents for item in content.get(f"{kind}s") or ())
    return next((item.get(kind) or {} for item in items if item["name"] == name), {})


def impersonation(user: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The headers by which a user acts as somebody else ("User impersonation" of Kubernetes)."""
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
