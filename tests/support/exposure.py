"""What became of the replicas and of the status while something went on, each with its time.

Two watches of kubectl's, so that nothing that lasts shorter than a look at the cluster is missed.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from tests.support.kubectl import Kubectl, Object

_POD = (
    r"{.metadata.name} {.metadata.annotations.inferencemodel\.dev/target-version}"
    r' {.status.containerStatuses[?(@.name=="model-server")].restartCount}{"\n"}'
)
_RESOURCE = '{.status}{"\\n"}'


@dataclass(frozen=True)
class Seen:
    """A replica at a moment."""

    at: float
    """Seconds since the epoch."""
    pod: str
    told: str
    """The version that it is told to serve."""
    restarts: int


class Exposure:
    """Watches one InferenceModel and its replicas inside a ``with`` block."""

    def __init__(self, kubectl: Kubectl, name: str) -> None:
        self._pods: list[Seen] = []
        self._statuses: list[tuple[float, Object]] = []
        self._readers: list[threading.Thread] = []
        self._watches = (
            self._watch(
                kubectl, _POD, self._pod, "pods", f"--selector=inferencemodel.dev/name={name}"
            ),
            self._watch(kubectl, _RESOURCE, self._status, "inferencemodel", name),
        )

    def _watch(
        self, kubectl: Kubectl, output: str, take: Callable[[str], None], *what: str
    ) -> subprocess.Popen[str]:
        command = [str(kubectl.program), "--namespace", str(kubectl.namespace), "get", *what]
        watch = subprocess.Popen(
            [*command, "--watch", f"--output=jsonpath={output}"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "KUBECONFIG": str(kubectl.kubeconfig)},
        )
        reader = threading.Thread(target=self._read, args=(watch, take), daemon=True)
        reader.start()
        self._readers.append(reader)
        return watch

    def _read(self, watch: subprocess.Popen[str], take: Callable[[str], None]) -> None:
        assert watch.stdout is not None
        with watch.stdout as printed:
            for line in printed:
                take(line.rstrip("\n"))

    def _pod(self, line: str) -> None:
        name, told, restarts = line.split(" ")
        self._pods.append(Seen(time.time(), name, told, int(restarts or 0)))

    def _status(self, line: str) -> None:
        if line:
            self._statuses.append((time.time(), json.loads(line)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for watch in self._watches:
            watch.kill()
            watch.wait()
        for reader in self._readers:
            reader.join(timeout=10)

    def alive(self) -> bool:
        """Whether nothing is missed."""
        return all(watch.poll() is None for watch in self._watches)

    def told(self, version: int, since: float = 0.0) -> dict[str, float]:
        """The replicas that were ever told to serve a version, each with when it was at first."""
        found: dict[str, float] = {}
        for seen in list(self._pods):
            if seen.told == str(version) and seen.at >= since:
                found.setdefault(seen.pod, seen.at)
        return found

    def restarts(self) -> dict[str, int]:
        """How often each replica's model server was started again, by the last word of it."""
        return {seen.pod: seen.restarts for seen in list(self._pods)}

    @property
    def status(self) -> Object:
        """The last word."""
        return self._statuses[-1][1] if self._statuses else {}

    def until(
        self, holds: Callable[[Object], Any], *, what: str, since: float = 0.0, within: float = 90.0
    ) -> tuple[float, Object]:
        """Wait for a status, or find one that was, from a moment on; returns its time as well."""

        def look() -> tuple[float, Object] | None:
            assert self.alive(), "a watch has ended"
            for at, status in list(self._statuses):
                try:
                    if at >= since and holds(status):
                        return at, status
                except KeyError:
                    continue
            raise AssertionError(json.dumps(self.status))

        return eventually(look, what=what, within=within, every=0.1)
