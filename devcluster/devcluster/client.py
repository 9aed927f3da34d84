"""How callers reach a cluster: its kubeconfig, its kubectl, and whether it is ready."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devcluster.errors import DevclusterError

if TYPE_CHECKING:
    from pathlib import Path

#: Seconds that one call of kubectl may take when the caller does not say.
KUBECTL_SECONDS = 120.0


class KubectlError(DevclusterError):
    """kubectl ended with an error; the message is what it printed."""


@dataclass(frozen=True)
class Api:
    """An API server that somebody may use."""

    kubeconfig: Path
    url: str
    program: Path
    """The kubectl to use with it."""
    audit_log: Path | None = None
    """One JSON event (``audit.k8s.io/v1``) a line for each answered write; only the embedded
    clusters have one."""
    ingress: str = ""
    """``host:port`` of the ingress controller, where one is known."""

    def kubectl(
        self, *arguments: str, stdin: str | None = None, timeout: float = KUBECTL_SECONDS
    ) -> str:
        """Run kubectl and return what it printed.

        Raises:
            KubectlError: it ended with an error, or took longer than ``timeout`` seconds.
        """
        called = f"kubectl {' '.join(arguments)}"
        try:
            done = subprocess.run(
                [str(self.program), f"--kubeconfig={self.kubeconfig}", *arguments],
                input=stdin,
                capture_output=True,
                text=True,
                check=False,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            raise KubectlError(f"{called}: no answer within {timeout:.0f} s") from None
        if done.returncode != 0:
            raise KubectlError(f"{called}: {done.stderr.strip()}")
        return done.stdout


def external(kubeconfig: Path, program: Path) -> Api:
    """The cluster that a kubeconfig's current context names.

    Raises:
        KubectlError: the kubeconfig can't be read.
    """
    api = Api(kubeconfig, "", program)
    view = json.loads(api.kubectl("config", "view", "--minify", "-o", "json"))
    return Api(kubeconfig, view["clusters"][0]["cluster"]["server"], program)


def answers(port: int, authority: Path, path: str) -> bool:
    """Whether a TLS server on 127.0.0.1 answers a GET with 200."""
    try:
        context = ssl.create_default_context(cafile=str(authority))
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.HTTPStatus.OK
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return False
