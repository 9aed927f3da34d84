"""The demo's InferenceModel, as kubectl and its own pods' model servers see it."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from demo import photo
from demo.cluster import VERSION
from demo.console import say
from demo.errors import ClusterError, OutcomeError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Collection, Iterable, Iterator

    from demo.cluster import Cluster
    from demo.photo import Prediction

NAME = "imagenet"
NAMESPACE = "vision"
SELECTOR = f"inferencemodel.dev/name={NAME}"
EXAMPLE = "examples/imagenet.yaml"
HOST = "imagenet.example.com"
"""The example's Ingress host."""
_INGRESS_SECONDS = 30.0
_LEAVE_SECONDS = 120.0
_ROLLOUT_SECONDS = 180.0


_COLUMNS = {
    "VERSION": ".status.model.activeVersion",
    "TARGET": ".status.model.targetVersion",
    "READY": '.status.conditions[?(@.type=="Ready")].status',
    "REPLICAS": ".status.replicaSummary",
    "STATUS": ".status.model.transitionStatus",
}


class Check(msgspec.Struct):
    """One of ``status.model.rollout.checks``."""

    name: str
    result: str
    message: str = ""


class Rollout(msgspec.Struct):
    """What the demo shows of ``status.model.rollout``."""

    phase: str
    message: str = ""
    checks: tuple[Check, ...] = ()


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

    def apply(self, registry: str | None = None) -> None:
        """Create the namespace and the example in it.

        Args:
            registry: where the model server's image is, if not on the nodes.
        """
        self.cluster.kubectl("create", "namespace", NAMESPACE, show=True)
        self.kubectl("apply", "-f", EXAMPLE, show=True)
        if registry:
            spec = {"server": {"image": f"{registry}/development-model-server:{VERSION}"}}
            patch = json.dumps({"spec": spec})
            self.kubectl("patch", "inferencemodel", NAME, "--type=merge", "--patch", patch)

    def remove(self) -> None:
        """Take away what an earlier run left, and wait until it is gone.

        Its pollers would otherwise take the next notification for themselves.
        """
        if self.cluster.kubectl("get", "namespace", NAMESPACE, "--ignore-not-found"):
            say("taking away what an earlier run left; its pods drain first")
            self.cluster.kubectl("delete", "namespace", NAMESPACE, timeout=180)

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

    def wait_for_version(self, version: int, *, replicas: int, seconds: float = 300.0) -> None:
        """Wait until the resource says that all its replicas answer with a version.

        Raises:
            OutcomeError: the deadline passed; tells what the resource and its pods say instead.
        """
        deadline = time.monotonic() + seconds
        wanted = [str(version), f"{replicas}/{replicas}"]
        paths = [".status.model.activeVersion", ".status.replicaSummary"]
        while time.monotonic() < deadline:
            for path, value in zip(paths, wanted, strict=True):
                self.wait(path, value, seconds=max(1.0, deadline - time.monotonic()))
            both = " ".join(f"{{{path}}}" for path in paths)
            seen = self.kubectl("get", "inferencemodel", NAME, f"--output=jsonpath={both}")
            if seen.split() == wanted:
                return
        raise OutcomeError(f"no rest within {seconds:.0f} s\n{self._state()}")

    def wait_for_rollout(self, version: int, phases: Collection[str]) -> Rollout:
        """Wait until the rollout of a version has come to one of these phases.

        Raises:
            OutcomeError: the deadline passed; tells what the resource and its pods say instead.
        """
        deadline = time.monotonic() + _ROLLOUT_SECONDS
        while time.monotonic() < deadline:
            found = self.cluster.read(f"--namespace={NAMESPACE}", "inferencemodel", NAME)
            rollout = found.get("status", {}).get("model", {}).get("rollout")
            if rollout and rollout["version"] == version and rollout["phase"] in phases:
                return msgspec.convert(rollout, Rollout)
            time.sleep(0.2)
        raise OutcomeError(
            f"version {version} is not {' or '.join(phases)} after {_ROLLOUT_SECONDS:.0f} s\n"
            f"{self._state()}"
        )

    def abort(self, version: int) -> None:
        """Take a version back, as ``kubectl inferencemodel abort`` does.

        Raises:
            OutcomeError: the operator doesn't read it.
        """
        annotation = f"inferencemodel.dev/abort={version}"
        self.kubectl("annotate", "inferencemodel", NAME, annotation, show=True)
        self.wait_for_rollout(version, ("RolledBack",))

    def scale(self, replicas: int, *, version: int) -> None:
        """Scale, and wait until just so many pods are left that answer with a version.

        Raises:
            OutcomeError: it did not come to that.
        """
        self.kubectl("scale", f"inferencemodel/{NAME}", f"--replicas={replicas}", show=True)
        self.wait_for_version(version, replicas=replicas)
        say(f"{replicas} of {replicas} replicas are ready")
        leaving = len(self.pods()) - replicas
        if leaving > 0:
            say(f"{leaving} more finish what they have begun, and go")
        deadline = time.monotonic() + _LEAVE_SECONDS
        while len(self.pods()) > replicas:
            if time.monotonic() > deadline:
                raise OutcomeError(f"after {_LEAVE_SECONDS:.0f} s: {self.pods()}")
            time.sleep(1.0)

    def ask(self, image: bytes) -> Prediction:
        """What the model sees in a photo, asked through the Ingress.

        Raises:
            OutcomeError: there was no answer.
        """
        return photo.classify(self.cluster.ingress, HOST, NAME, image)

    def first_answer(self, image: bytes) -> Prediction:
        """The same soon after the start: an ingress controller hears of its Ingress by and by.

        Raises:
            OutcomeError: there was no answer for half a minute.
        """
        deadline = time.monotonic() + _INGRESS_SECONDS
        while True:
            try:
                return self.ask(image)
            except OutcomeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

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
        template = "|".join(f"{{{path}}}" for path in _COLUMNS.values())
        watch = self.cluster.watch(
            *(f"--namespace={NAMESPACE}", "inferencemodel", NAME),
            f'--output=jsonpath={template}{{"\\n"}}',
        )
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
    widths = [max(len(title), 10) for title in _COLUMNS]
    last: list[str] = []

    def row(moment: str, cells: Iterable[str]) -> None:
        shown = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        say(f"{moment:>8}   {' '.join(shown)}")

    row("", _COLUMNS)
    for line in watch.stdout:
        cells = line.rstrip("\n").split("|")
        if cells != last:
            row(f"{time.monotonic() - started:+.1f} s", cells)
            last = cells
