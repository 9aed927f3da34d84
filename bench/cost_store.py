"""How often a poller asks a store that has nothing new, and what a new version costs in requests.

Real servers, and a connection between them and the poller that counts. A look every few seconds
stands for one every half a minute: it is the requests of one look that are told, and those an hour
are arithmetic.
"""

from __future__ import annotations

import io
import tempfile
import time
import zipfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import poller_process
from bench.counted import Counted
from demo.console import say
from demo.errors import OutcomeError
from demo.storage import SUBSCRIPTION, Storage
from model_poller.status import VersionState, decode
from tests.support import store_servers
from tests.support.stores import AWS_ACCOUNT, AZURE_ACCOUNT, AZURE_KEY, Aws, BlobContainer
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Mapping

# A SavedModel with an empty graph: saved_model_schema_version 1, one meta graph.
_GRAPH = b"\x08\x01\x12\x02\x0a\x00"
_ARCHIVE_BYTES = 40_000_000
_OLD_VERSIONS = 3
_INTERVAL = 2.0
_NOTIFIED_INTERVAL = 600.0
_SETTLED_SECONDS = 5.0
_CHANGE_SECONDS = 60.0


@dataclass(frozen=True)
class Store:
    """A store in which versions lie.

    Attributes:
        upload: puts a file under a name below the storage URI.
        arguments: of the poller.
        environment: of the poller.
        connections: to what it asks, which count.
        interval: seconds between two looks.
    """

    upload: Callable[[str, bytes], object]
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    connections: tuple[Counted, ...]
    interval: float = _INTERVAL

    def requests(self) -> Counter[str]:
        """So far."""
        first, *others = (each.requests() for each in self.connections)
        return sum(others, first)


def run(seconds: float) -> dict[str, dict[str, Any]]:
    """Figures of each kind of store, by its name.

    Args:
        seconds: for how long each is looked at that has nothing new.

    Raises:
        OutcomeError: a version was not published.
    """
    return {name: _measure(name, make, seconds) for name, make in _STORES.items()}


def _measure(name: str, make: Callable[[ExitStack, Path], Store], seconds: float) -> dict[str, Any]:
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = make(stack, scratch)
        for number in range(1, _OLD_VERSIONS + 1):
            store.upload(f"{number}.zip", _archive(1000))
        process = poller_process.poller(
            scratch,
            *(*store.arguments, "--server-address=127.0.0.1:9"),
            f"--poll-interval={store.interval:g}",
            environment=store.environment,
        )
        _, port = stack.enter_context(process)
        time.sleep(_SETTLED_SECONDS)
        before, looks, since = store.requests(), _looks(port), time.monotonic()
        time.sleep(seconds)
        took, rest = time.monotonic() - since, store.requests() - before
        looks = _looks(port) - looks
        before = store.requests()
        store.upload(f"{_OLD_VERSIONS + 1}.zip", _archive(_ARCHIVE_BYTES))
        eventually(
            lambda: _published(port, _OLD_VERSIONS + 1), what=f"{name}: it", within=_CHANGE_SECONDS
        )
        change = store.requests() - before
    figures = {
        "seconds": round(took, 1),
        "looks": looks,
        "requests": dict(rest),
        "requests_a_look": round(
            sum(n for kind, n in rest.items() if not kind.endswith("messages")) / looks, 2
        )
        if looks
        else None,
        "messages_an_hour": round(rest["POST messages"] / took * 3600),
        "reads_of_a_new_version": sum(n for kind, n in change.items() if kind == "GET object"),
    }
    say(f"{name}: {figures}")
    return figures


def _archive(size: int) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("saved_model.pb", _GRAPH)
        archive.writestr("assets/weights", bytes(size))
    return content.getvalue()


def _looks(port: str) -> int:
    for line in poller_process.get(port, "/metrics").decode().splitlines():
        if 'step_seconds_count{step="list"}' in line:
            return int(float(line.split()[-1]))
    raise OutcomeError("the poller does not tell how often it has looked")


def _published(port: str, version: int) -> bool:
    told = decode(poller_process.get(port, "/status"))
    return any(v.version == version and v.state is VersionState.PUBLISHED for v in told.versions)


def _gs(stack: ExitStack, scratch: Path) -> Store:
    storage = stack.enter_context(Storage(scratch, in_memory=True))
    between = stack.enter_context(Counted(storage.url))
    return Store(
        upload=lambda name, content: storage.bucket.upload(f"idle/{name}", content),
        arguments=("--storage-uri=gs://models/idle", f"--endpoint={between.url}", "--anonymous"),
        environment={},
        connections=(between,),
    )


def _pubsub(stack: ExitStack, scratch: Path) -> Store:
    # The stream of messages is one call that stays; an anonymous counter would not see into it.
    storage = stack.enter_context(Storage(scratch, in_memory=True))
    between = stack.enter_context(Counted(storage.url))
    return Store(
        upload=lambda name, content: storage.bucket.upload(f"idle/{name}", content),
        arguments=(
            *("--storage-uri=gs://models/idle", f"--endpoint={between.url}", "--anonymous"),
            *(f"--pubsub-subscription={SUBSCRIPTION}", f"--pubsub-endpoint={storage.pubsub}"),
        ),
        environment={},
        connections=(between,),
        interval=_NOTIFIED_INTERVAL,
    )


def _s3(stack: ExitStack, scratch: Path, *, notified: bool = False) -> Store:
    server = store_servers.moto(scratch / "moto.log")
    stack.callback(server.stop)
    aws = Aws(server.url)
    bucket = aws.bucket("models")
    between = stack.enter_context(Counted(server.url))
    queue: tuple[str, ...] = ()
    if notified:
        aws.queue("uploads")
        bucket.notify("uploads")
        queue = (f"--sqs-queue-url={between.url}/{AWS_ACCOUNT}/uploads",)
    return Store(
        upload=lambda name, content: bucket.upload(f"idle/{name}", content),
        arguments=(
            *("--storage-uri=s3://models/idle", f"--endpoint={between.url}", "--path-style"),
            *queue,
        ),
        environment=aws.keys,
        connections=(between,),
        interval=_NOTIFIED_INTERVAL if notified else _INTERVAL,
    )


def _sqs(stack: ExitStack, scratch: Path) -> Store:
    return _s3(stack, scratch, notified=True)


def _az(stack: ExitStack, scratch: Path) -> Store:
    server = store_servers.azurite(scratch / "azurite.log")
    stack.callback(server.stop)
    container = BlobContainer(f"{server.url}/{AZURE_ACCOUNT}", "models")
    between = stack.enter_context(Counted(f"{server.url}/{AZURE_ACCOUNT}"))
    return Store(
        upload=lambda name, content: container.upload(f"idle/{name}", content),
        arguments=("--storage-uri=az://models/idle", f"--endpoint={between.url}"),
        environment={
            "AZURE_STORAGE_ACCOUNT_NAME": AZURE_ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY,
        },
        connections=(between,),
    )


def _https(stack: ExitStack, scratch: Path) -> Store:
    folder = scratch / "site"
    (folder / "idle").mkdir(parents=True)
    server = store_servers.web(scratch / "site.log", folder)
    stack.callback(server.stop)
    between = stack.enter_context(Counted(server.url))

    def upload(name: str, content: bytes) -> None:
        part = folder / name
        part.write_bytes(content)
        part.rename(folder / "idle" / name)

    return Store(
        upload=upload,
        arguments=(f"--storage-uri={between.url}/idle/",),
        environment={},
        connections=(between,),
    )


_STORES: Mapping[str, Callable[[ExitStack, Path], Store]] = {
    "gs": _gs,
    "gs, Pub/Sub": _pubsub,
    "s3": _s3,
    "s3, SQS": _sqs,
    "az": _az,
    "https": _https,
}
