"""The real kubectl, for tests that act as a user would."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.objects import Objects, RefusedError
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


Object = dict[str, Any]


class KubectlError(AssertionError):
    """kubectl ended with an error; the message is what it printed.

    An AssertionError, so that a wait takes it for "not yet".
    """


@dataclass(frozen=True)
class Kubectl:
    """kubectl against one cluster and, when named, one namespace.

    What is only looked at is asked for without it: see :mod:`tests.support.objects`.
    """

    program: Path | str
    kubeconfig: Path
    namespace: str | None = None

    @property
    def objects(self) -> Objects:
        """The objects of the same cluster, user and namespace."""
        return Objects(self.kubeconfig, self.namespace)

    def in_namespace(self, namespace: str) -> Kubectl:
        """The same cluster, another default namespace."""
        return Kubectl(self.program, self.kubeconfig, namespace)

    def as_service_account(self, name: str, kubeconfig: Path) -> Kubectl:
        """The same, as a service account of the namespace, for an hour; writes a kubeconfig."""
        config = json.loads(self("config", "view", "--raw", "--minify", "-o", "json"))
        token = self("create", "token", name, "--duration=1h").strip()
        config["users"][0]["user"] = {"token": token}
        kubeconfig.touch(mode=0o600)
        kubeconfig.write_text(json.dumps(config))
        return Kubectl(self.program, kubeconfig, self.namespace)

    def __call__(self, *args: str, stdin: str | None = None, timeout: float = 120.0) -> str:
        """Run kubectl and return what it printed.

        Raises:
            KubectlError: kubectl's exit code was not 0.
        """
        namespace = ["--namespace", self.namespace] if self.namespace else []
        done = subprocess.run(
            [str(self.program), *namespace, *args],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
        )
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout

    def get(self, kind: str, name: str) -> Object:
        """One object.

        Raises:
            KubectlError: it is not there, or may not be read.
        """
        try:
            return self.objects.get(kind, name)
        except RefusedError as error:
            raise KubectlError(str(error)) from None

    def list(self, kind: str, selector: str | None = None) -> list[Object]:
        """All objects of a kind, or those that a label selector picks.

        Raises:
            KubectlError: they may not be listed.
        """
        try:
            return self.objects.list(kind, selector)
        except RefusedError as error:
            raise KubectlError(str(error)) from None

    def raw(self, path: str) -> Object:
        """What the API server answers to a GET, such as what a pod says through it.

        Raises:
            KubectlError: it is refused, or nobody answers.
        """
        try:
            return self.objects.raw(path)
        except RefusedError as error:
            raise KubectlError(str(error)) from None

    def apply(self, manifest: Mapping[str, Any]) -> str:
        """``kubectl apply`` of one object."""
        return self("apply", "-f", "-", stdin=json.dumps(manifest))

    def until(
        self,
        kind: str,
        name: str,
        holds: Callable[[Object], object],
        *,
        what: str,
        within: float = 120.0,
    ) -> Object:
        """Read an object until ``holds`` is true of it, and return it.

        A key or an index that the object does not have yet means that it is not true yet.

        Raises:
            TimeoutError: the deadline (seconds) passed.
        """
        seen: Object = {}

        def look() -> bool:
            seen.clear()
            seen.update(self.get(kind, name))
            held: object = False
            with suppress(LookupError):
                held = holds(seen)
            assert held, json.dumps(seen.get("status"))
            return True

        eventually(look, what=f"{kind} {name}: {what}", within=within, every=0.1)
        return seen


def condition(obj: Object, kind: str) -> Object:
    """One condition of an object's status, ``{}`` while it is not there."""
    for found in obj.get("status", {}).get("conditions", []):
        if found["type"] == kind:
            typed: Object = found
            return typed
    return {}
