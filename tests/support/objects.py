"""An API server's objects over connections that stay open.

A kubectl for each look works for a tenth of a second, and what a test waits for is looked at often:
users act by kubectl, while tests look, and play the parts of kubelet and controllers, by this.
"""

from __future__ import annotations

import functools
import json
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import kubernetes
import urllib3

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Object = dict[str, Any]

SECONDS = 60.0
"""How long one request may take."""

_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class RefusedError(AssertionError):
    """A request was refused, or nobody answered; the message is as kubectl has it.

    An AssertionError, so that a wait takes it for "not yet".
    """


@dataclass(frozen=True)
class Kind:
    """Where the objects of one kind are."""

    path: str
    """Of the API, such as ``/apis/apps/v1``."""
    plural: str
    namespaced: bool

    def address(self, namespace: str, *below: str) -> str:
        """The path of all of them, or of what is below: a name, and perhaps a subresource."""
        of = ("namespaces", namespace) if self.namespaced else ()
        return "/".join([self.path, *(quote(part) for part in (*of, self.plural, *below))])


class Connections:
    """To the API server of one kubeconfig, as the user that it names."""

    def __init__(self, kubeconfig: Path) -> None:
        self._client = kubernetes.config.new_client_from_config(str(kubeconfig))
        _, active = kubernetes.config.list_kube_config_contexts(str(kubeconfig))
        self.namespace: str = active["context"].get("namespace", "default")
        """The one that is meant where none is named."""
        self._kinds: dict[str, Kind] = {}
        self._discovery = threading.Lock()

    def kind(self, name: str) -> Kind:
        """A kind by any name that kubectl takes, such as ``deploy`` or ``deployments.apps``.

        Raises:
            RefusedError: the API server has none of this name.
        """
        name = name.lower()
        with self._discovery:
            if name not in self._kinds:
                self._kinds = self._discovered()
            if name not in self._kinds:
                raise RefusedError(f'the server doesn\'t have a resource type "{name}"')
            return self._kinds[name]

    def request(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        content: str = "application/json",
        accept: str = "application/json",
    ) -> Object:
        """Send one request and return the answer.

        Raises:
            RefusedError: it was refused, or nobody answered within ``SECONDS``.
        """
        headers = {"Accept": accept, "Content-Type": content}
        try:
            answer = self._send(method, path, headers, body)
            told = answer.read()
        except (urllib3.exceptions.HTTPError, kubernetes.client.ApiException) as error:
            raise RefusedError(f"{method} {path}: {error}") from None
        try:
            decoded: Object = json.loads(told)
        except ValueError:
            decoded = {"message": told.decode(errors="replace")}
        if answer.status >= 400:
            message = decoded.get("message", answer.status)
            raise RefusedError(f"Error from server ({decoded.get('reason', '')}): {message}")
        return decoded

    def changes(self, path: str) -> Iterator[None]:
        """Watch what is under a path, for as long as the server lets it: once for each change.

        Raises:
            RefusedError: it was refused, or nothing came for ``SECONDS``.
        """
        try:
            answer = self._send("GET", path, {"Accept": "application/json"})
            if answer.status >= 400:
                raise RefusedError(f"GET {path}: {answer.status}")
            for _ in answer.stream():
                yield None
        except (urllib3.exceptions.HTTPError, kubernetes.client.ApiException) as error:
            raise RefusedError(f"GET {path}: {error}") from None

    def _send(
        self, method: str, path: str, headers: dict[str, str], body: Object | None = None
    ) -> urllib3.BaseHTTPResponse:
        configuration = self._client.configuration
        token = configuration.get_api_key_with_prefix("BearerToken")
        if token:
            headers = {**headers, "Authorization": token}
        answer: urllib3.BaseHTTPResponse = self._client.call_api(
            *(method, configuration.host + path, headers, body), _request_timeout=SECONDS
        ).response
        return answer

    def _discovered(self) -> dict[str, Kind]:
        """All kinds by all of their names; the first of a name is the one that kubectl means."""
        found: dict[str, Kind] = {}
        for root in ("/api", "/apis"):
            for group in self.request("GET", root, accept=_DISCOVERY)["items"]:
                name = group["metadata"].get("name")
                for version in group["versions"]:
                    path = "/".join([root, *filter(None, [name]), version["version"]])
                    for resource in version.get("resources", ()):
                        kind = Kind(path, resource["resource"], resource["scope"] == "Namespaced")
                        singular = resource.get("singularResource") or kind.plural
                        for word in (kind.plural, singular, *resource.get("shortNames", ())):
                            found.setdefault(word, kind)
                            if name:
                                found.setdefault(f"{word}.{name}", kind)
        return found


@functools.cache
def _connected(kubeconfig: Path, contents: str) -> Connections:
    """One for all that use the same: they stay open until the tests end."""
    return Connections(kubeconfig)


@dataclass(frozen=True)
class Objects:
    """Those of one cluster and one namespace; where none is named, of the kubeconfig's."""

    kubeconfig: Path
    namespace: str | None = None

    def get(self, kind: str, name: str) -> Object:
        """One object, as ``kubectl get`` has it: without its managed fields."""
        return _without_managers(self._request("GET", kind, name))

    def list(self, kind: str, selector: str | None = None) -> list[Object]:
        """All objects of a kind, or those that a label selector picks."""
        query = {"labelSelector": selector} if selector else {}
        found = self._request("GET", kind, query=query)
        of = {"apiVersion": found["apiVersion"], "kind": found["kind"].removesuffix("List")}
        return [{**of, **_without_managers(item)} for item in found.get("items") or ()]

    def changes(self, kind: str, selector: str, seconds: int) -> Iterator[None]:
        """Watch the objects that a label selector picks for so long: once for each change."""
        connections = self._connections()
        path = connections.kind(kind).address(self.namespace or connections.namespace)
        query = {"labelSelector": selector, "watch": "true", "timeoutSeconds": str(seconds)}
        return connections.changes(f"{path}?{urlencode(query)}")

    def raw(self, path: str) -> Object:
        """What the API server answers to a GET, such as what a pod says through it."""
        return self._connections().request("GET", path)

    def create(self, kind: str, made: Object, *, dry_run: bool = False) -> Object:
        """Create an object; unknown fields are refused, as kubectl has it.

        Args:
            kind: what it is.
            made: the object.
            dry_run: whether the API server shall only say what it would do.
        """
        query = {"fieldValidation": "Strict", **({"dryRun": "All"} if dry_run else {})}
        body: Object = json.loads(json.dumps(made), parse_float=_number)
        return self._request("POST", kind, body=body, query=query)

    def apply(self, manifest: Object, *, manager: str = "kubectl", dry_run: bool = False) -> Object:
        """Apply an object on the server's side; unknown fields are refused, as kubectl has it.

        Args:
            manifest: the object, with the namespace that it is to be in.
            manager: who it is that applies it.
            dry_run: whether the API server shall only say what it would do.
        """
        version, metadata = manifest["apiVersion"], manifest["metadata"]
        root = "/apis" if "/" in version else "/api"
        connections = self._connections()
        kind = replace(connections.kind(manifest["kind"].lower()), path=f"{root}/{version}")
        query = {
            "fieldManager": manager,
            "fieldValidation": "Strict",
            **({"dryRun": "All"} if dry_run else {}),
        }
        namespace = metadata.get("namespace") or self.namespace or connections.namespace
        path = kind.address(namespace, metadata["name"])
        content = "application/apply-patch+yaml"
        return connections.request("PATCH", f"{path}?{urlencode(query)}", manifest, content=content)

    def merge(self, kind: str, name: str, *below: str, **patch: Any) -> Object:
        """Merge into an object, or into a subresource that is below it."""
        content = "application/merge-patch+json"
        return self._request("PATCH", kind, name, *below, body=patch, content=content)

    def delete(self, kind: str, name: str) -> None:
        """Delete an object at once, without waiting for anybody."""
        self._request("DELETE", kind, name, query={"gracePeriodSeconds": "0"})

    def _request(
        self,
        method: str,
        kind: str,
        *below: str,
        query: dict[str, str] | None = None,
        body: Object | None = None,
        content: str = "application/json",
    ) -> Object:
        connections = self._connections()
        namespace = self.namespace or connections.namespace
        path = connections.kind(kind).address(namespace, *below)
        asked = f"?{urlencode(query)}" if query else ""
        return connections.request(method, path + asked, body, content=content)

    def _connections(self) -> Connections:
        return _connected(self.kubeconfig, self.kubeconfig.read_text())


def _number(text: str) -> float:
    """A number as kubectl sends it on: a whole one without a point."""
    number = float(text)
    return int(number) if number.is_integer() else number


def _without_managers(obj: Object) -> Object:
    obj["metadata"].pop("managedFields", None)
    return obj
