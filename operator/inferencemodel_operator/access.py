"""How the API server is reached: address, trust and credentials.

A kubeconfig with its exec plugins is loaded by the `kubernetes` package, which takes 30 MB and is
therefore not imported in a pod, where two files and two variables say it all.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from inferencemodel_operator.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import ClientRequest, ClientResponse
    from aiohttp.client_middlewares import ClientHandlerType

RECHECK_SECONDS: Final = 60.0
"""How long a token is used before it is looked at again; projected tokens rotate hourly."""

UNAUTHORIZED: Final = 401
SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the kubelet puts a pod's token and what it is to trust ("Accessing the Kubernetes API from
a Pod" in Kubernetes' documentation)."""


@dataclass(frozen=True)
class _Credentials:
    """Where a cluster is, what to trust, and who is asking."""

    server: str
    header: Callable[[], str | None]
    """Gives the Authorization header of now; may read a file or start a plugin."""
    trusted: str | None
    """File of the certificates to trust; None for the machine's own."""
    verify: bool = True
    certificate: str | None = None
    key: str | None = None


class Access:
    """One cluster's address and credentials; an aiohttp client middleware that adds them."""

    def __init__(self, kubeconfig: Path | None = None) -> None:
        """Load the credentials, which may start an exec plugin: call it in a thread.

        Args:
            kubeconfig: None for the pod's service account, or outside a pod for the
                environment's KUBECONFIG or ~/.kube/config.

        Raises:
            PermanentError: no usable credentials; names where they were looked for.
        """
        self._kubeconfig = kubeconfig
        self.in_cluster = False
        """Whether this process runs in a pod of the cluster that it manages."""
        self._load()
        self.server = self._credentials.server.rstrip("/")

    def _load(self) -> None:
        found = None if self._kubeconfig else _service_account()
        self.in_cluster = found is not None
        try:
            self._credentials = found or _from_kubeconfig(self._kubeconfig)
            self._header = self._credentials.header()
        except OSError as error:
            raise _NoAccessError(self._kubeconfig, error) from None
        self._recheck_at = time.monotonic() + RECHECK_SECONDS

    def ssl_context(self) -> ssl.SSLContext | bool:
        """What a connection trusts and shows; True for an address without TLS."""
        credentials = self._credentials
        if not self.server.startswith("https"):
            return True
        context = ssl.create_default_context(cafile=credentials.trusted)
        if not credentials.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if credentials.certificate:
            context.load_cert_chain(credentials.certificate, credentials.key)
        return context

    async def __call__(self, request: ClientRequest, send: ClientHandlerType) -> ClientResponse:
        """Send a request with the credentials of now; once more with new ones when refused."""
        if time.monotonic() >= self._recheck_at:
            self._recheck_at = time.monotonic() + RECHECK_SECONDS
            # A token that can't be read now is no worse than the one that was read before.
            with suppress(OSError):
                self._header = await asyncio.to_thread(self._credentials.header)
        used = self._header
        response = await self._send(request, send)
        if response.status == UNAUTHORIZED and used is not None:
            if self._header == used:
                await asyncio.to_thread(self._load)
            if self._header != used:
                response.release()
                response = await self._send(request, send)
        return response

    async def _send(self, request: ClientRequest, send: ClientHandlerType) -> ClientResponse:
        if self._header is not None:
            request.headers["Authorization"] = self._header
        return await send(request)


class _NoAccessError(PermanentError):
    """There are no credentials that can be used."""

    def __init__(self, kubeconfig: Path | None, problem: object) -> None:
        super().__init__(
            f"no access to a cluster by {kubeconfig or 'a service account or KUBECONFIG'}: "
            f"{problem}; name a kubeconfig file with --kubeconfig"
        )


def _service_account() -> _Credentials | None:
    """The pod's own credentials; None outside a pod."""
    host, port = (os.environ.get(f"KUBERNETES_SERVICE_{part}") for part in ("HOST", "PORT"))
    token = SERVICE_ACCOUNT / "token"
    if not host or not port or not token.exists():
        return None
    return _Credentials(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        # The kubelet replaces the token long before it expires.
        header=lambda: f"Bearer {token.read_text().strip()}",
        trusted=str(SERVICE_ACCOUNT / "ca.crt"),
    )


def _from_kubeconfig(path: Path | None) -> _Credentials:
    """What a kubeconfig says; None for KUBECONFIG or ~/.kube/config."""
    import kubernetes.config
    from kubernetes.client import Configuration

    configuration: Any = Configuration()
    try:
        kubernetes.config.load_kube_config(
            config_file=str(path) if path else None, client_configuration=configuration
        )
    except kubernetes.config.ConfigException as error:
        raise _NoAccessError(path, error) from None
    return _Credentials(
        server=str(configuration.host),
        header=lambda: configuration.get_api_key_with_prefix("BearerToken"),
        trusted=configuration.ssl_ca_cert or None,
        verify=configuration.verify_ssl,
        certificate=configuration.cert_file or None,
        key=configuration.key_file or None,
    )
