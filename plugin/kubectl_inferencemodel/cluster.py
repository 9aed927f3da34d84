"""The API server, as far as the commands need it."""

from __future__ import annotations

import copy
import json
import re
import ssl
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote, unquote, urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import msgspec
import urllib3

from inferencemodel_operator import names, nesting
from kubectl_inferencemodel import kubeconfig, lenient
from kubectl_inferencemodel.errors import (
    AnswerError,
    ClusterError,
    ConflictError,
    ForbiddenError,
    GoneError,
    NotFoundError,
    UnavailableError,
    UnwatchableError,
)
from kubectl_inferencemodel.resource import (
    Event,
    InferenceModel,
    Named,
    Objects,
    Pod,
    RawObjects,
    WatchEvent,
)
from model_poller.status import PollerStatus

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from kubectl_inferencemodel.access import Access

T = TypeVar("T")

MAX_BYTES: Final = 64 << 20
"""The longest answer that is read, of the API server and of a model server alike."""
_PAGE: Final = 500
_API: Final = "/apis/inferencemodel.dev/v1alpha1"
_KIND: Final = "inferencemodels"
FIELD_MANAGER: Final = "kubectl-inferencemodel"
"""By whom a change of the plugin is, for the API server's records of who manages a field."""
_POLLER_PORT: Final = 8502
_READ: Final = urllib3.Timeout(connect=5, read=15)
_LOOK: Final = urllib3.Timeout(connect=2, read=3)
"""Seconds; a pod that has gone doesn't answer at all."""
_PREDICT: Final = urllib3.Timeout(connect=5, read=60)
"""Seconds; a prediction may take a while."""
_WHOLE_SECONDS: Final = 120.0
"""How long an answer may go on coming."""
_CHUNK: Final = 1 << 16
_WATCH_SECONDS: Final = 300
"""After so long the API server ends a watch, and another one is opened."""
_SILENCE: Final = urllib3.Timeout(connect=5, read=90)
"""Seconds; the API server sends a bookmark about every minute."""
_LONGEST_CHANGE: Final = 8 << 20
"""Bytes of one change; the API server keeps no object of more than about 1.5 MB."""
_LOG_BYTES: Final = 256 << 10
_METADATA: Final = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
"""Has the API server leave out what is not asked for."""
_SCHEMA: Final = "/openapi/v3/apis/inferencemodel.dev/v1alpha1"
_ADDRESS: Final = re.compile(r"<[^>]*>: ")
"""Where in memory the client has its connection, in front of its messages."""


class _Door:
    """The way to the API server, which all that ask it share: it may have to be found anew."""

    def __init__(self, file: Path | None, context: str | None) -> None:
        self._file, self._context = file, context
        self.access: Access = kubeconfig.find(file, context)

    def renew(self) -> None:
        """Read the credentials again."""
        self.access = kubeconfig.find(self._file, self._context)


class Cluster:
    """One API server, and the namespace that is meant when none is named."""

    def __init__(self, file: Path | None, context: str | None, namespace: str | None) -> None:
        """Find it as kubectl does.

        Raises:
            ClusterError: there is no usable kubeconfig.
        """
        self._door = _Door(file, context)
        self.namespace = namespace or self._door.access.namespace
        self._patience = _READ

    @property
    def server(self) -> str:
        """The API server's URL."""
        return self._door.access.server

    def within(self, namespace: str) -> Cluster:
        """The same API server, where another namespace is meant."""
        found = copy.copy(self)
        found.namespace = namespace
        return found

    def impatient(self) -> Cluster:
        """The same for somebody who waits in the middle of a word."""
        found = copy.copy(self)
        found._patience = _LOOK
        return found

    def names(self) -> list[str]:
        """The names of the namespace's InferenceModels, of some hundred at most."""
        return self._names(self._models_path(everywhere=False), "InferenceModels")

    def namespaces(self) -> list[str]:
        """The names of namespaces, of some hundred at most."""
        return self._names("/api/v1/namespaces", "namespaces")

    def _names(self, path: str, what: str) -> list[str]:
        body = self._sure(f"{path}?limit={_PAGE}", what, "GET", None, accept=_METADATA)
        found: list[Named] = [_item(item, Named, what) for item in _page(body, what).items]
        return [each.metadata.name for each in found]

    def models(self, *, everywhere: bool = False, selector: str = "") -> list[InferenceModel]:
        """All InferenceModels of the namespace, or of all of them, that have some labels."""
        path = self._models_path(everywhere=everywhere)
        return list(self._listed(path, selector, InferenceModel, what="InferenceModels"))

    def pages(
        self, *, everywhere: bool, selector: str = ""
    ) -> Iterator[tuple[list[InferenceModel], str]]:
        """All InferenceModels, some hundred at a time, and as of which resource version.

        Raises:
            ForbiddenError: who asks may not list them there.
        """
        path = self._models_path(everywhere=everywhere)
        return self._pages(path, selector, InferenceModel, what="InferenceModels")

    def changes(self, since: str, *, everywhere: bool, selector: str = "") -> Iterator[WatchEvent]:
        """What happens to InferenceModels, until the API server ends the watch.

        Args:
            since: the resource version that was seen last.
            everywhere: those of every namespace.
            selector: those that have some labels.

        Raises:
            GoneError: that is too long ago; list them again.
            UnwatchableError: who asks has no right to watch.
            ClusterError: it is refused, or breaks off.
        """
        query = {
            "watch": "1",
            "resourceVersion": since,
            "allowWatchBookmarks": "1",
            "timeoutSeconds": str(_WATCH_SECONDS),
            **({"labelSelector": selector} if selector else {}),
        }
        what = "the watch of InferenceModels"
        for line in self._lines(f"{self._models_path(everywhere=everywhere)}?{urlencode(query)}"):
            event: WatchEvent = _decoded(line, WatchEvent, what)
            if event.type == "ERROR":
                if event.object.get("code") == 410:
                    raise GoneError(f"{what}: {event.object.get('message')}")
                raise UnavailableError(f"{what}: {event.object.get('message')}")
            yield event

    def _lines(self, path: str) -> Iterator[bytes]:
        access = self._door.access
        try:
            answer = access.pool.request(
                *("GET", access.server + path),
                headers=access.headers(),
                timeout=_SILENCE,
                retries=False,
                preload_content=False,
            )
            try:
                if answer.status == 410:
                    raise GoneError("the API server no longer has what was seen last")
                if answer.status == 401:
                    self._door.renew()
                if answer.status != 200:
                    kind = UnwatchableError if answer.status == 403 else UnavailableError
                    words = _message(answer.read1(_CHUNK, decode_content=False))
                    raise kind(f"a watch is answered by {answer.status}: {words or 'no words'}")
                yield from _split(answer)
            finally:
                # What is still to come would be read otherwise.
                answer.close()
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise UnavailableError(f"a watch has broken off: {_words(error)}") from error

    def object(self, name: str) -> dict[str, Any]:
        """One InferenceModel with all that the API server has of it.

        Raises:
            NotFoundError: there is none of that name.
        """
        path = f"{_API}{self._within}/{_KIND}/{quote(name, safe='')}"
        what = f"InferenceModel {self.namespace}/{name}"
        return _decoded(self._get(path, what), dict[str, Any], what)

    def schema(self) -> dict[str, Any]:
        """What the API server publishes of the definition's fields and their defaults."""
        return _decoded(self._get(_SCHEMA, "the schema"), dict[str, Any], "the schema")

    def log(self, pod: str, container: str, lines: int) -> str:
        """The last lines of what a container has written.

        Raises:
            ClusterError: it can't be read.
        """
        query = urlencode({"container": container, "tailLines": lines, "limitBytes": _LOG_BYTES})
        path = f"/api/v1{self._within}/pods/{quote(pod, safe='')}/log?{query}"
        what = f"the log of {container} of pod {self.namespace}/{pod}"
        return self._get(path, what).decode(errors="replace")

    def model(self, name: str) -> InferenceModel:
        """One InferenceModel.

        Raises:
            NotFoundError: there is none of that name.
        """
        path = f"{_API}{self._within}/{_KIND}/{quote(name, safe='')}"
        what = f"InferenceModel {self.namespace}/{name}"
        return _decoded(self._get(path, what), InferenceModel, what)

    def pods(self, name: str) -> tuple[Pod, ...]:
        """The pods of one InferenceModel, by name."""
        return self._pods(name, names.MODEL_LABEL)

    def all_pods(self, name: str) -> tuple[Pod, ...]:
        """The same, and behind them those that rehearse a version of it."""
        return self._pods(name, names.MODEL_LABEL) + self._pods(name, names.REHEARSAL_LABEL)

    def _pods(self, name: str, label: str) -> tuple[Pod, ...]:
        path, selector = f"/api/v1{self._within}/pods", f"{label}={name}"
        found = self._listed(path, selector, Pod, what=f"pods of {self.namespace}/{name}")
        return tuple(sorted(found, key=lambda pod: pod.metadata.name))

    def patch(self, model: InferenceModel, change: Mapping[str, Any]) -> InferenceModel:
        """Merge a change into an InferenceModel, if it still is as it was read.

        Raises:
            ConflictError: somebody has changed it since.
            ClusterError: it is refused.
        """
        name = model.metadata.name
        path = f"{_API}{self._within}/{_KIND}/{quote(name, safe='')}?fieldManager={FIELD_MANAGER}"
        what = f"InferenceModel {self.namespace}/{name}"
        # The uid, too: one that was created anew may have any resource version.
        read = {"uid": model.metadata.uid, "resourceVersion": model.metadata.resource_version}
        metadata = {**change.get("metadata", {}), **read}
        body = json.dumps({**change, "metadata": metadata}).encode()
        return _decoded(self._sure(path, what, "PATCH", body), InferenceModel, what)

    def events(self, model: InferenceModel) -> tuple[Event, ...]:
        """What was told about an InferenceModel in the last hour, as Events are kept."""
        query = urlencode({"fieldSelector": f"involvedObject.uid={model.metadata.uid}"})
        path = f"/api/v1{self._within}/events?{query}"
        return tuple(self._listed(path, "", Event, what=f"Events of {model.metadata.name}"))

    def report(self, pod: str) -> PollerStatus:
        """What the poller of one pod says, through the API server's proxy.

        Raises:
            ForbiddenError: who asks may not use the proxy of pods.
            ClusterError: nothing of use answers there.
        """
        base = f"/api/v1{self._within}/pods/{quote(pod, safe='')}:{_POLLER_PORT}/proxy"
        what = f"the poller of pod {self.namespace}/{pod}"
        status, body = self._send(f"{base}/status", timeout=_LOOK)
        if status == 403:
            raise ForbiddenError(f"{what}: {_message(body)}; it takes get on pods/proxy")
        if status != 200:
            raise UnavailableError(f"{what} answers {status}: {_message(body)}")
        return _decoded(body, PollerStatus, what)

    def ask_service(self, service: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Ask a Service's port ``http`` through the API server; the answer's status and body.

        Raises:
            ClusterError: the API server can't be asked.
            AnswerError: the answer is too long.
        """
        base = f"/api/v1{self._within}/services/{quote(service, safe='')}:http/proxy"
        return self._send(base + path, body, timeout=_PREDICT)

    def ask_url(self, url: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Ask a model server where everybody does, without the cluster's credentials.

        As other programs do, it goes through the proxy that the environment names.

        Raises:
            ClusterError: nobody answers there.
            AnswerError: the answer is too long.
        """
        headers = {"Content-Type": "application/json"}
        try:
            with _way_to(url) as pool:
                return _ask(pool, url, body, headers, _PREDICT)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise ClusterError(
                f"no answer at {url}: {_words(error)}; without --via=url the API server carries it"
            ) from error

    @property
    def _within(self) -> str:
        return f"/namespaces/{quote(self.namespace, safe='')}"

    def _models_path(self, *, everywhere: bool) -> str:
        return f"{_API}{'' if everywhere else self._within}/{_KIND}"

    def _listed(self, path: str, selector: str, kind: type[T], *, what: str) -> Iterator[T]:
        for items, _ in self._pages(path, selector, kind, what=what):
            yield from items

    def _pages(
        self, path: str, selector: str, kind: type[T], *, what: str
    ) -> Iterator[tuple[list[T], str]]:
        query = {"limit": str(_PAGE), **({"labelSelector": selector} if selector else {})}
        link = "&" if "?" in path else "?"
        while True:
            page = _page(self._get(f"{path}{link}{urlencode(query)}", what), what)
            items = [_item(item, kind, what) for item in page.items]
            yield items, page.metadata.resource_version
            if not page.metadata.continue_:
                return
            query["continue"] = page.metadata.continue_

    def _get(self, path: str, what: str) -> bytes:
        return self._sure(path, what, "GET", None)

    def _sure(
        self, path: str, what: str, method: str, body: bytes | None, *, accept: str = ""
    ) -> bytes:
        """The body of an answer that is as it should be."""
        status, answer = self._send(path, body, method=method, accept=accept)
        if status == 401:
            # What a program or a file gave has expired meanwhile: a wait can outlive it.
            self._door.renew()
            status, answer = self._send(path, body, method=method, accept=accept)
        if status == 404 and not answer.startswith(b"{"):
            # Not even a Status object: it is the kind that is not known.
            raise ClusterError(
                f"{what}: the cluster has no CRD of InferenceModels; see docs/install.md"
            )
        if status == 404:
            raise NotFoundError(f"{what}: {_message(answer)}")
        if status == 401:
            raise ClusterError(
                f"{what}: the API server does not take the credentials of the kubeconfig"
                f" ({_message(answer)}); they may have expired: log in again"
            )
        if status == 409:
            raise ConflictError(f"{what}: {_message(answer)}")
        if status == 403:
            raise ForbiddenError(f"{what}: the API server answers 403: {_message(answer)}")
        if status != 200:
            kind = UnavailableError if status == 429 or status >= 500 else ClusterError
            raise kind(f"{what}: the API server answers {status}: {_message(answer)}")
        return answer

    def _send(
        self,
        path: str,
        body: bytes | None = None,
        *,
        timeout: urllib3.Timeout | None = None,
        method: str = "",
        accept: str = "",
    ) -> tuple[int, bytes]:
        access = self._door.access
        server, headers = access.server, access.headers()
        merge = method == "PATCH"
        headers["Content-Type"] = "application/merge-patch+json" if merge else "application/json"
        if accept:
            headers["Accept"] = accept
        try:
            return _ask(
                access.pool, server + path, body, headers, timeout or self._patience, method
            )
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            if error.args and isinstance(error.args[0], ssl.SSLCertVerificationError):
                raise ClusterError(
                    f"the API server {server} can't be trusted: {_words(error)}; see"
                    " certificate-authority-data of the kubeconfig"
                ) from error
            raise UnavailableError(
                f"the API server {server} can't be asked: {_words(error)}"
            ) from error


def _way_to(url: str) -> urllib3.PoolManager:
    """Connections to a server, through the proxy of HTTPS_PROXY or HTTP_PROXY but for NO_PROXY."""
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    if not proxy or proxy_bypass(parts.netloc):
        return urllib3.PoolManager()
    found = urllib3.util.parse_url(proxy if "://" in proxy else f"http://{proxy}")
    shown = unquote(found.auth) if found.auth else None
    headers = urllib3.util.make_headers(proxy_basic_auth=shown)
    return urllib3.ProxyManager(found._replace(auth=None).url, proxy_headers=headers)


def _ask(
    pool: urllib3.PoolManager,
    url: str,
    body: bytes | None,
    headers: Mapping[str, str],
    timeout: urllib3.Timeout,
    method: str = "",
) -> tuple[int, bytes]:
    answer = pool.request(
        method or ("GET" if body is None else "POST"),
        url,
        body=body,
        headers=headers,
        timeout=timeout,
        retries=False,
        preload_content=False,
    )
    try:
        whole = bytearray()
        deadline = time.monotonic() + _WHOLE_SECONDS
        while chunk := answer.read1(_CHUNK, decode_content=False):
            whole += chunk
            if len(whole) > MAX_BYTES or time.monotonic() > deadline:
                raise AnswerError(
                    f"the answer of {url.partition('?')[0]} is longer than {MAX_BYTES >> 20} MiB"
                    f" or {_WHOLE_SECONDS:.0f} s"
                )
    except AnswerError:
        answer.close()
        raise
    answer.release_conn()
    return answer.status, bytes(whole)


def _split(answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """The lines of an answer, as they come.

    Raises:
        ValueError: one is longer than any object is.
    """
    rest = bytearray()
    while chunk := answer.read1(_CHUNK, decode_content=False):
        rest += chunk
        if len(rest) > _LONGEST_CHANGE:
            raise ValueError(f"a change is longer than {_LONGEST_CHANGE >> 20} MiB")
        if b"\n" in chunk:
            *lines, tail = rest.split(b"\n")
            rest = bytearray(tail)
            yield from (bytes(line) for line in lines if line)


def _decoded(body: bytes, kind: type[T], what: str) -> T:
    try:
        try:
            content = msgspec.json.decode(body)
        except RecursionError:
            # One object that somebody has nested so must not hide the others.
            content = msgspec.json.decode(nesting.shallow(body))
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ClusterError(f"{what}: what the API server answers is no JSON: {error}") from error
    return _typed(content, kind, what)


def _page(body: bytes, what: str) -> Objects | RawObjects:
    try:
        return msgspec.json.decode(body, type=RawObjects)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _decoded(body, Objects, what)


def _item(item: Any, kind: type[T], what: str) -> T:
    """An object of a list; most are as they should be, and read without a detour by dicts."""
    if not isinstance(item, msgspec.Raw):
        return _typed(item, kind, what)
    try:
        return msgspec.json.decode(item, type=kind)
    except (msgspec.DecodeError, UnicodeError):
        return _decoded(bytes(item), kind, what)


def _typed(content: object, kind: type[T], what: str) -> T:
    try:
        return lenient.read(content, kind)
    except msgspec.ValidationError as error:
        raise ClusterError(
            f"{what}: not understood: {error}; use the plugin of the operator's release"
        ) from error


def _message(body: bytes) -> str:
    """The words of a ``Status`` object, or the beginning of whatever it is instead."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return body[:300].decode(errors="replace")


def _words(error: Exception) -> Any:
    return _ADDRESS.sub("", str(error)) or type(error).__name__
