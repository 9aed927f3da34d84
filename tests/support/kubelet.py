"""Stands in for the kubelet of simulated pods: carries their annotations to their pollers."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from tests.support.kubectl import Kubectl
    from tests.support.pods import StubPoller


class Kubelet:
    """Watches the pods of one namespace while the block runs."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl
        self._pollers: dict[str, StubPoller] = {}
        self._watch: subprocess.Popen[str] | None = None

    def run(self, name: str, poller: StubPoller) -> None:
        """Have the poller of a pod hear from now on what the pod is told."""
        self._pollers[name] = poller

    def __enter__(self) -> Kubelet:
        assert self._kubectl.namespace is not None
        self._watch = subprocess.Popen(
            [
                *(str(self._kubectl.program), "--namespace", self._kubectl.namespace),
                *("get", "pods", "--watch", "--output=json"),
            ],
            env={**os.environ, "KUBECONFIG": str(self._kubectl.kubeconfig)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._watch.stdout is not None
        threading.Thread(target=self._follow, args=(self._watch.stdout,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._watch is not None
        self._watch.kill()
        self._watch.wait(timeout=10)

    def _follow(self, printed: IO[str]) -> None:
        lines: list[str] = []
        with printed:
            for line in printed:
                lines.append(line)
                # An object is printed over many lines, and only its last one is not indented.
                if line == "}\n":
                    self._take(json.loads("".join(lines))["metadata"])
                    lines.clear()

    def _take(self, metadata: dict[str, object]) -> None:
        poller = self._pollers.get(str(metadata["name"]))
        annotations = metadata.get("annotations")
        if poller is not None and isinstance(annotations, dict):
            poller.hear(annotations.get("inferencemodel.dev/target-version"))
