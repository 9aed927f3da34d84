"""The API server, as far as the commands need it. Finding and trusting it is kubectl's way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

import kubernetes.config
import msgspec
import urllib3
from kubernetes.client import Configuration
from kubernetes.client.rest import RESTClientObject

from kubectl_inferencemodel.errors import ClusterError, NotFoundError, UnavailableError
from kubectl_inferencemodel.resource import InferenceModel, InferenceModels, Pod, Pods

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")

_API: Final = "/apis/inferencemodel.dev/v1alpha1"
_KIND: Final = "inferencemodels"
_POD_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_READ: Final = urllib3.Timeout(connect=5, read=15)
_PREDICT: Final = urllib3.Timeout(connect=5, read=60)
"""Seconds; a prediction may take a while."""


class Cluster:
    """One API server, and the namespace that is meant when none is named."""

    def __init__(self, kubeconfig: Path | None, context: str | None, namespace: str | None) -> None:
        """Read the kubeconfig as kubectl does; in a pod without one, its service account.

        Raises:
            ClusterError: there is no usable one.
        """
        configuration: Any = Configuration()
        file = None if kubeconfig is None else str(kubeconfig)
        try:
            try:
                kubernetes.config.load_kube_config(
                    config_file=file, context=context, client_configuration=configuration
                )
                default = _namespace_of(file, context)
            except kubernetes.config.ConfigException:
                if kubeconfig is not None or context is not None or not _POD_NAMESPACE.exists():
                    raise
                kubernetes.config.load_incluster_config(client_configuration=configuration)
                default = _POD_NAMESPACE.read_text().strip()
        except (kubernetes.config.ConfigException, OSError) as error:
            raise ClusterError(
                f"no cluster: {error}; name a file with --kubeconfig or KUBECONFIG"
            ) from None
        self.namespace = namespace or default
        self._configuration = configuration
        self._server = str(configuration.host).rstrip("/")
        self._pool: urllib3.PoolManager = RESTClientObject(configuration).pool_manager

    def models(self, *, everywhere: bool = False) -> tuple[InferenceModel, ...]:
        """All InferenceModels of the namespace, or of all of them."""
        within = "" if everywhere else f"/namespaces/{self.namespace}"
        found = self._typed(f"{_API}{within}/{_KIND}", InferenceModels, what="InferenceModels")
        return found.items

    def model(self, name: str) -> InferenceModel:
        """One InferenceModel.

        Raises:
            NotFoundError: there is none of that name.
        """
        path = f"{_API}/namespaces/{self.namespace}/{_KIND}/{quote(name, safe='')}"
        return self._typed(path, InferenceModel, what=f"InferenceModel {self.namespace}/{name}")

    def pods(self, name: str) -> tuple[Pod, ...]:
        """The pods of one InferenceModel, by name."""
        query = f"labelSelector={quote(f'inferencemodel.dev/name={name}')}"
        path = f"/api/v1/namespaces/{self.namespace}/pods?{query}"
        found = self._typed(path, Pods, what=f"pods of {self.namespace}/{name}").items
        return tuple(sorted(found, key=lambda pod: pod.metadata.name))

    def ask_service(self, service: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Ask a Service's port ``http`` through the API server; the answer's status and body.

        Raises:
            ClusterError: the API server can't be asked.
        """
        base = f"/api/v1/namespaces/{self.namespace}/services/{service}:http/proxy"
        method = "GET" if body is None else "POST"
        return self._send(method, self._server + base + path, body, timeout=_PREDICT)

    def ask_url(self, url: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Ask a model server where everybody does, without the cluster's credentials.

        Raises:
            ClusterError: nobody answers there.
        """
        headers = {"Content-Type": "application/json"}
        try:
            answer = urllib3.PoolManager().request(
                "GET" if body is None else "POST",
                url,
                body=body,
                headers=headers,
                timeout=_PREDICT,
                retries=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise ClusterError(
                f"no answer at {url}: {error}; without --via=url the API server carries it"
            ) from error
        return answer.status, answer.data

    def _typed(self, path: str, wanted: type[T], *, what: str) -> T:
        status, body = self._send("GET", self._server + path)
        if status == 404 and not body.startswith(b"{"):
            # Not even a Status object: it is the kind that is not known.
            raise ClusterError(
                f"{what}: the cluster has no CRD of InferenceModels; see docs/install.md"
            )
        if status == 404:
            raise NotFoundError(f"{what}: {_message(body)}")
        if status != 200:
            kind = UnavailableError if status == 429 or status >= 500 else ClusterError
            raise kind(f"{what}: the API server answers {status}: {_message(body)}")
        try:
            return msgspec.json.decode(body, type=wanted)
        except msgspec.DecodeError as error:
            raise ClusterError(
                f"{what}: not understood: {error}; use the plugin of the operator's release"
            ) from error

    def _send(
        self, method: str, url: str, body: bytes | None = None, *, timeout: urllib3.Timeout = _READ
    ) -> tuple[int, bytes]:
        headers: Mapping[str, str] = {"Content-Type": "application/json"}
        token = self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        if token is not None:
            headers = {**headers, "Authorization": token}
        try:
            answer = self._pool.request(
                method, url, body=body, headers=headers, timeout=timeout, retries=False
            )
        except urllib3.exceptions.HTTPError as error:
            raise UnavailableError(
                f"the API server {self._server} can't be asked: {error}"
            ) from error
        return answer.status, answer.data


def _namespace_of(file: str | None, context: str | None) -> str:
    contexts, active = kubernetes.config.list_kube_config_contexts(config_file=file)
    used = next((c for c in contexts if c["name"] == context), active)
    return str(used["context"].get("namespace") or "default")


def _message(body: bytes) -> str:
    """The words of a ``Status`` object, or the beginning of whatever it is instead."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body[:300].decode(errors="replace")
