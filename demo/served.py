"""The demo's InferenceModel, as kubectl and its own pods' model servers see it."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from demo.console import say
from demo.errors import ClusterError, OutcomeError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from demo.cluster import Cluster

NAME = "imagenet"
NAMESPACE = "vision"
SELECTOR = f"inferencemodel.dev/name={NAME}"
EXAMPLE = "examples/imagenet.yaml"
HOST = "imagenet.example.com"
"""The example's Ingress host."""


class _Served(msgspec.Struct):
    version: int
    state: str


class _Answer(msgspec.Struct):
    model_version_status: tuple[_Served, ...]


@dataclass(frozen=True)
class Served:
    """The InferenceModel ``imagenet`` in its namespace."""

    cluster: Cluster

    def kubectl(self, *arguments: str, show: bool = False, timeout: float = 120.0) -> str:
        """kubectl in the model's namespace."""
        return self.cluster.kubectl(
            f"--namespace={NAMESPACE}", *arguments, show=show, timeout=timeout
        )

    def show(self) -> None:
        """Print the resource as ``kubectl get`` shows it."""
        say(self.kubectl("get", "inferencemodels", show=True))

    def wait(self, path: str, value: object, *, seconds: float) -> None:
        """Wait with kubectl, as a pipeline would, until a field of the resource has a value.

        Raises:
            OutcomeError: the deadline passed; tells what the resource and its pods say instead.
        """
        try:
            self.kubectl(
                *("wait", f"inferencemodel/{NAME}", f"--for=jsonpath={{{path}}}={value}"),
                f"--timeout={seconds:.0f}s",
                timeout=seconds + 30,
            )
        except ClusterError as error:
            raise OutcomeError(f"{error}\n{self._state()}") from error

    def _state(self) -> str:
        status = self.cluster.read(f"--namespace={NAMESPACE}", "inferencemodel", NAME)
        conditions = "\n".join(
            f"  {c['type']}={c['status']} {c['reason']}: {c.get('message', '')}"
            for c in status.get("status", {}).get("conditions", [])
        )
        return f"{conditions}\n{self.kubectl('get', 'pods', '--output=wide')}"

    def pods(self) -> list[str]:
        """The names of the pods that are there, those that are leaving included."""
        return self.kubectl("get", "pods", f"--selector={SELECTOR}", "--output=name").split()

    def versions(self) -> dict[str, int | None]:
        """The version that each pod's own model server calls AVAILABLE, by the pod's name."""
        return {
            pod.removeprefix("pod/"): self._version(pod.removeprefix("pod/")) for pod in self.pods()
        }

    def _version(self, pod: str) -> int | None:
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8501/proxy/v1/models/{NAME}"
        answer = msgspec.json.decode(self.kubectl("get", "--raw", path), type=_Answer, strict=False)
        available = [s.version for s in answer.model_version_status if s.state == "AVAILABLE"]
        return max(available, default=None)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Inside the block, show each change of the resource's columns with its time."""
        started = time.monotonic()
        watch = self.cluster.watch(f"--namespace={NAMESPACE}", "inferencemodels", NAME)
        reader = threading.Thread(target=_show_changes, args=(watch, started), daemon=True)
        reader.start()
        try:
            yield
            # What ended the block is in the last line, which may still be on its way.
            reader.join(1.0)
        finally:
            watch.terminate()
            watch.wait()
            reader.join()


def _show_changes(watch: subprocess.Popen[str], started: float) -> None:
    assert watch.stdout
    last, width = "", 0
    for line in watch.stdout:
        # The address and the age say nothing new.
        width = width or line.index("URL")
        row = line[:width].rstrip()
        if row != last:
            moment = f"{time.monotonic() - started:+6.1f} s" if last else " " * 8
            say(f"{moment}   {row}")
            last = row
