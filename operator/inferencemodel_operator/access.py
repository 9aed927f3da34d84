"""How the API server is reached: address, trust and credentials.

A kubeconfig with its exec plugins is loaded by the `kubernetes` package, which takes 30 MB and is
therefore not imported in a pod, where two files and two variables say it all.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from yarl import URL

from inferencemodel_operator.bodies import closed_by_failure
from inferencemodel_operator.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import ClientRequest, ClientResponse
    from aiohttp.client_middlewares import ClientHandlerType

logger = logging.getLogger(__name__)

RECHECK_SECONDS: Final = 60.0
"""How long a token is used before it is looked at again; projected tokens rotate hourly."""
RENEW_SECONDS: Final = 10.0
"""The least time between two attempts to get other credentials than those that were refused. What
comes through the API server's proxy may be a pod's own refusal, and renewing starts a plugin."""

UNAUTHORIZED: Final = 401
_REDIRECTS: Final = range(300, 400)
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
    in_cluster: bool = False
    impersonation: tuple[tuple[str, str], ...] = ()
    """Headers by which somebody else asks than whose credentials these are."""


class AstrayError(aiohttp.ClientConnectionError):
    """A request that would take the operator's credentials somewhere else; it was not sent."""


class Access:
    """One cluster's address and credentials; an aiohttp client middleware that adds them.

    It sends nothing to any other origin (scheme, host and port) than the API server's, and lets no
    session follow a redirect, wherever to: neither a token nor a client certificate gets anywhere
    else, and nobody who is reached through the API server's proxy chooses what is read from it.
    """

    def __init__(self, kubeconfig: Path | None = None) -> None:
        """Load the credentials, which may start an exec plugin: call it in a thread.

        Args:
            kubeconfig: None for the pod's service account, or outside a pod for the
                environment's KUBECONFIG or ~/.kube/config.

        Raises:
            PermanentError: no usable credentials; names where they were looked for.
        """
        self._kubeconfig = kubeconfig
        self._credentials, self._header = self._load()
        self._recheck_at = time.monotonic() + RECHECK_SECONDS
        self._renewing = asyncio.Lock()
        self._renew_at = 0.0
        self.in_cluster = self._credentials.in_cluster
        """Whether this process runs in a pod of the cluster that it manages."""
        self.server = self._credentials.server

    def _load(self) -> tuple[_Credentials, str | None]:
        """The credentials of now, and the header that they give."""
        try:
            found = None if self._kubeconfig else _service_account()
            credentials = found or _from_kubeconfig(self._kubeconfig)
            return credentials, credentials.header()
        except OSError as error:
            raise _NoAccessError(self._kubeconfig, error) from None

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
        """Send a request with the credentials of now; once more with new ones when refused.

        Raises:
            AstrayError: it goes, or is redirected, to where the credentials must not go.
        """
        await self._recheck()
        used = self._header
        response = await self._send(request, send)
        if response.status == UNAUTHORIZED and used is not None:
            with closed_by_failure(response):
                await self._renew(used)
            if self._header != used:
                response.release()
                response = await self._send(request, send)
        return response

    async def _send(self, request: ClientRequest, send: ClientHandlerType) -> ClientResponse:
        if _origin(request.url) != _origin(URL(self.server)):
            raise AstrayError(f"{request.url.origin()} is not the API server's address")
        if self._header is not None:
            request.headers["Authorization"] = self._header
        if self._credentials.impersonation and "Impersonate-User" not in request.headers:
            request.headers.extend(self._credentials.impersonation)
        response = await send(request)
        if response.status in _REDIRECTS:
            response.close()
            raise AstrayError(f"redirects ({response.status}) are not followed")
        return response

    async def _recheck(self) -> None:
        """Look now and then whether the credentials have changed."""
        if time.monotonic() < self._recheck_at:
            return
        self._recheck_at = time.monotonic() + RECHECK_SECONDS
        # A token that can't be read now is no worse than the one that was read before.
        with suppress(OSError):
            self._header = await asyncio.to_thread(self._credentials.header)

    async def _renew(self, refused: str) -> None:
        """Load the credentials anew, unless another request just did."""
        async with self._renewing:
            if self._header != refused or time.monotonic() < self._renew_at:
                return
            self._renew_at = time.monotonic() + RENEW_SECONDS
            try:
                credentials, header = await asyncio.to_thread(self._load)
            except PermanentError as error:
                logger.warning("the credentials were refused, and there are no others: %s", error)
                return
            if credentials.server != self._credentials.server:
                logger.error(
                    "the credentials are those of %s by now; restart the operator to move there",
                    credentials.server,
                )
                return
            self._credentials, self._header = credentials, header


def _origin(url: URL) -> tuple[str, str | None, int | None]:
    return url.scheme, url.host, url.port


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
        in_cluster=True,
    )


def _from_kubeconfig(path: Path | None) -> _Credentials:
    """What a kubeconfig says; None for KUBECONFIG or ~/.kube/config."""
    import kubernetes.config
    from kubernetes.client import Configuration

    from inferencemodel_operator import kubeconfigs

    configuration: Any = Configuration()

    def header() -> str | None:
        found = configuration.get_api_key_with_prefix("BearerToken")
        # A token's file ends with a line break, as files do.
        return None if found is None else str(found).rstrip()

    try:
        chosen = kubeconfigs.chosen(path)
        kubernetes.config.load_kube_config(
            # Of several files, Kubernetes' client takes the context of the last one.
            *(chosen.files, chosen.name),
            client_configuration=configuration,
        )
        impersonation = chosen.impersonation
        token = header()
    except Exception as error:  # noqa: BLE001
        # The client takes a file's shape for granted, and what gives credentials raises anything.
        raise _NoAccessError(path, error) from None
    if token is not None and not token.isprintable():
        raise _NoAccessError(path, "the token holds a line break")
    return _Credentials(
        server=str(configuration.host).rstrip("/"),
        header=header,
        trusted=configuration.ssl_ca_cert or None,
        verify=configuration.verify_ssl,
        certificate=configuration.cert_file or None,
        key=configuration.key_file or None,
        impersonation=impersonation,
    )
