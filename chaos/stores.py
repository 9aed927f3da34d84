"""The stores of the fleet on this machine, each behind a proxy that pods reach it by."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from chaos.fleet import CLAIM
from chaos.plan import Quality
from chaos.proxy import Proxy
from demo.storage import Storage
from devcluster.network import NODE_ADDRESS
from tests.support import savedmodels, store_servers, subscriptions
from tests.support.cable import Cable
from tests.support.stores import AZURE_ACCOUNT, AZURE_KEY, Aws, BlobContainer

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from chaos.fleet import Model

BUCKET = "models"
SECRETS = {
    "s3": {"AWS_ACCESS_KEY_ID": "AKIACHAOS", "AWS_SECRET_ACCESS_KEY": "secret"},
    "az": {"AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY},
}
"""Keys of each store's Secret."""


class Objects(Protocol):
    """Where versions are put as objects."""

    def upload(self, path: str, content: bytes) -> None:
        """Put one."""

    def delete(self, path: str) -> None:
        """Remove one."""


@dataclass(frozen=True)
class Version:
    """A version as it was uploaded."""

    number: int
    quality: Quality
    entries: dict[str, bytes]


class Stores:
    """All of them inside a ``with`` block, and everything that was uploaded."""

    def __init__(self, scratch: Path, shared: Path) -> None:
        """Start nothing yet.

        Args:
            scratch: for logs, and what a web server shows.
            shared: the folder of this machine that the claim of ``pvc://`` is bound to.
        """
        self._scratch = scratch
        self._shared = shared
        self._stack = ExitStack()
        self._objects: dict[str, Objects] = {}
        self.proxies: dict[str, Proxy] = {}
        """By scheme; a claim has none."""
        self.versions: dict[str, dict[int, Version]] = {}
        """What every model ever had, by number."""
        self.hidden: set[tuple[str, int]] = set()
        """What was taken away meanwhile."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = self._scratch / "gs"
            folder.mkdir()
            storage = stack.enter_context(Storage(folder, in_memory=True))
            self._storage = storage
            self.notifications = stack.enter_context(
                Cable(int(storage.pubsub.partition(":")[2]), address=NODE_ADDRESS)
            )
            self._objects["gs"] = storage.bucket
            self._front(stack, "gs", storage.url)
            moto = store_servers.moto(self._scratch / "moto.log")
            stack.callback(moto.stop)
            self._objects["s3"] = Aws(moto.url).bucket(BUCKET)
            self._front(stack, "s3", moto.url)
            azurite = store_servers.azurite(self._scratch / "azurite.log")
            stack.callback(azurite.stop)
            self._objects["az"] = BlobContainer(f"{azurite.url}/{AZURE_ACCOUNT}", BUCKET)
            self._front(stack, "az", azurite.url)
            self._objects["http"] = _Folder(self._scratch / "web")
            web = store_servers.web(self._scratch / "web.log", self._scratch / "web")
            stack.callback(web.stop)
            self._front(stack, "http", web.url)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def subscribe(self, model: Model) -> None:
        """Have notifications for a model."""
        subscriptions.create(
            self._storage.pubsub,
            topic="projects/development/topics/models",
            subscription=model.subscription,
        )

    def uri(self, model: Model) -> str:
        """The ``storageUri``."""
        if model.scheme == "http":
            return f"{self.proxies['http'].url}/{model.name}"
        where = CLAIM if model.scheme == "pvc" else BUCKET
        return f"{model.scheme}://{where}/{model.name}"

    def source(self, model: Model) -> dict[str, Any]:
        """``spec.source``."""
        if model.scheme == "pvc":
            return {}
        proxy = self.proxies[model.scheme]
        if model.scheme == "http":
            return {"anonymous": True}
        if model.scheme == "s3":
            return {
                "endpoint": proxy.url,
                "region": "us-east-1",
                "secretRef": {"name": "s3"},
            }
        if model.scheme == "az":
            return {
                "endpoint": f"{proxy.url}/{AZURE_ACCOUNT}",
                "azure": {"account": AZURE_ACCOUNT},
                "secretRef": {"name": "az"},
            }
        source: dict[str, Any] = {"endpoint": proxy.url, "anonymous": True}
        if model.notified:
            endpoint = f"{NODE_ADDRESS}:{self.notifications.port}"
            source["notifications"] = {
                "pubsub": {"subscription": model.subscription, "endpoint": endpoint}
            }
        return source

    def newest(self, model: Model) -> int:
        """The number of the last version; 0 before the first."""
        return max(self.versions.get(model.name, {}), default=0)

    def add(self, model: Model, version: Version) -> None:
        """Upload a new version."""
        self.versions.setdefault(model.name, {})[version.number] = version
        self._put(model, version)

    def hide(self, model: Model, number: int) -> None:
        """Take a version away; ``restore`` puts it back."""
        self.hidden.add((model.name, number))
        if model.scheme == "pvc":
            shutil.rmtree(self._folder(model) / str(number), ignore_errors=True)
            return
        self._objects[model.scheme].delete(_path(model, number))

    def restore(self, model: Model, number: int) -> None:
        """Put back what was taken away."""
        if (model.name, number) in self.hidden:
            self._put(model, self.versions[model.name][number])
            self.hidden.discard((model.name, number))

    def has(self, model: Model, number: int) -> bool:
        """Whether a version is there now."""
        return (model.name, number) not in self.hidden

    def _put(self, model: Model, version: Version) -> None:
        if model.scheme == "pvc":
            self._put_folder(model, version)
            return
        content = savedmodels.archive(version.entries, folder=f"{version.number:04}")
        if version.quality is Quality.DAMAGED:
            content = content[: len(content) // 2]
        self._objects[model.scheme].upload(_path(model, version.number), content)

    def _put_folder(self, model: Model, version: Version) -> None:
        parent = self._folder(model)
        unfinished = parent / f".{version.number}.new"
        for name, content in version.entries.items():
            file = unfinished / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        unfinished.rename(parent / str(version.number))

    def _folder(self, model: Model) -> Path:
        return self._shared / model.name

    def _front(self, stack: ExitStack, scheme: str, url: str) -> None:
        self.proxies[scheme] = stack.enter_context(Proxy(NODE_ADDRESS, url))


def _path(model: Model, number: int) -> str:
    return f"{model.name}/{number:04}.zip"


class _Folder:
    """What a web server shows."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()

    def upload(self, path: str, content: bytes) -> None:
        file = self._folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f".{file.name}.new")
        unfinished.write_bytes(content)
        unfinished.replace(file)

    def delete(self, path: str) -> None:
        (self._folder / path).unlink(missing_ok=True)
