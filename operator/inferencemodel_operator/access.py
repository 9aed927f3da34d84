"""How the API server is reached: address, trust and credentials.

Loading (kubeconfig with its exec plugins, or the service account in a pod) is the `kubernetes`
package's; requests are not.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import TYPE_CHECKING, Any, Final

import kubernetes.config
from kubernetes.client import Configuration

from inferencemodel_operator.errors import PermanentError

if TYPE_CHECKING:
    from pathlib import Path

    from aiohttp import ClientRequest, ClientResponse
    from aiohttp.client_middlewares import ClientHandlerType

RECHECK_SECONDS: Final = 60.0
"""How long a token is used before it is looked at again; projected tokens rotate hourly."""

UNAUTHORIZED: Final = 401


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
        self.server = str(self._configuration.host).rstrip("/")

    def _load(self) -> None:
        configuration: Any = Configuration()
        try:
            if self._kubeconfig is None:
                try:
                    kubernetes.config.load_incluster_config(client_configuration=configuration)
                    self.in_cluster = True
                except kubernetes.config.ConfigException:
                    kubernetes.config.load_kube_config(client_configuration=configuration)
            else:
                kubernetes.config.load_kube_config(
                    config_file=str(self._kubeconfig), client_configuration=configuration
                )
        except (kubernetes.config.ConfigException, OSError) as error:
            raise PermanentError(
                f"no access to a cluster by {self._kubeconfig or 'a service account or KUBECONFIG'}"
                f": {error}; name a kubeconfig file with --kubeconfig"
            ) from None
        self._configuration = configuration
        self._header: str | None = configuration.get_api_key_with_prefix("BearerToken")
        self._recheck_at = time.monotonic() + RECHECK_SECONDS

    def ssl_context(self) -> ssl.SSLContext | bool:
        """What a connection trusts and shows; True for an address without TLS."""
        configuration = self._configuration
        if not self.server.startswith("https"):
            return True
        context = ssl.create_default_context(cafile=configuration.ssl_ca_cert or None)
        if not configuration.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if configuration.cert_file:
            context.load_cert_chain(configuration.cert_file, configuration.key_file or None)
        return context

    async def __call__(self, request: ClientRequest, send: ClientHandlerType) -> ClientResponse:
        """Send a request with the credentials of now; once more with new ones when refused."""
        if time.monotonic() >= self._recheck_at:
            self._recheck_at = time.monotonic() + RECHECK_SECONDS
            self._header = await asyncio.to_thread(
                self._configuration.get_api_key_with_prefix, "BearerToken"
            )
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
