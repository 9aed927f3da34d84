"""The API server, as far as the operator needs it: small requests over one bounded pool."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import orjson

from inferencemodel_operator import answers, bodies, documents, names, sockets
from inferencemodel_operator.answers import Target
from inferencemodel_operator.errors import ApiUnavailableError, NotFoundError, NotLeadingError
from inferencemodel_operator.rights import Rights

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Callable,
        Iterable,
        Mapping,
        Sequence,
    )

    from aiohttp.client_middlewares import ClientMiddlewareType

    from inferencemodel_operator.access import Access

Object = dict[str, Any]
"""An object as the API server gives it."""

USER_AGENT: Final = "inferencemodel-operator"
HANDOVER_MANAGER: Final = f"{names.FIELD_MANAGER}-handover"
"""Holds the replicas of a Deployment from the moment that the operator lets go of them."""
CONNECTIONS: Final = 24
"""The most connections for requests; watches come on top."""
REQUEST_TIMEOUT: Final = aiohttp.ClientTimeout(total=30, sock_connect=5)
PAGE_SIZE: Final = 100
LARGEST_PAGE: Final = 8 * 2**20
"""Bytes of a page of a list; of objects that are larger, fewer are asked for at a time."""
LARGEST_OBJECT: Final = 16 * 2**20
"""Bytes of one object. etcd takes 1.5 MiB of one, and JSON may write a byte of it with six."""
LARGEST_ERROR: Final = 2**20
"""Bytes of an error answer that are looked at."""
WATCH_SECONDS: Final = 240
"""After about so long the API server ends a watch, and the next goes on where it was."""
WATCH_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=90)
"""The API server sends at least a bookmark a minute: a silent connection leads nowhere."""
JSON: Final = "application/json"
NO_VERSION: Final = "1"
"""A resourceVersion that no object has: etcd's first write makes revision 2. An apply that names
it can create an object, and conflicts with any that exists."""


@dataclass(frozen=True)
class Resource:
    """One kind of namespaced object."""

    api_version: str
    kind: str
    plural: str
    asked_by: str = ""
    """The field that asks for it, where it comes with a CRD that a cluster need not have."""
    brought_by: str = ""
    """Whose CRD that is, where its name doesn't say so."""
    metadata_only: bool = False
    """Whether lists and watches bring no more than ``metadata``."""

    @property
    def optional(self) -> bool:
        """Whether a cluster may be without it."""
        return self.asked_by != ""

    @property
    def crd(self) -> str:
        """Name of the CRD that brings it."""
        return f"{self.plural}.{self.api_version.partition('/')[0]}"

    def name_kind(self, item: Object) -> Object:
        """An item of a list with its kind, which lists leave out."""
        return {"apiVersion": self.api_version, "kind": self.kind, **item}

    def path(self, namespace: str | None, name: str | None = None) -> str:
        """The URL path of an object, of a namespace's objects, or of all (None)."""
        root = "/api" if "/" not in self.api_version else "/apis"
        path = f"{root}/{self.api_version}"
        if namespace is not None:
            path += f"/namespaces/{namespace}"
        path += f"/{self.plural}"
        return path if name is None else f"{path}/{name}"

    def target(
        self, verb: str, namespace: str | None, name: str | None = None, *, subresource: str = ""
    ) -> Target:
        """What a request is about, for messages."""
        about = "/".join(part for part in (namespace, name) if part is not None)
        return Target(verb=verb, kind=self.kind, name=about, subresource=subresource)


MODELS: Final = Resource(names.API_VERSION, names.KIND, names.PLURAL)
DEPLOYMENTS: Final = Resource("apps/v1", "Deployment", "deployments")
SERVICES: Final = Resource("v1", "Service", "services")
INGRESSES: Final = Resource("networking.k8s.io/v1", "Ingress", "ingresses")
CONFIG_MAPS: Final = Resource("v1", "ConfigMap", "configmaps")
AUTOSCALERS: Final = Resource(
    "autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"
)
DISRUPTION_BUDGETS: Final = Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
NETWORK_POLICIES: Final = Resource("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
HTTP_ROUTES: Final = Resource(
    "gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes", asked_by="spec.gateway"
)
GRPC_ROUTES: Final = Resource(
    "gateway.networking.k8s.io/v1",
    "GRPCRoute",
    "grpcroutes",
    asked_by="spec.gateway.grpcHostnames",
)
SCALED_OBJECTS: Final = Resource(
    "keda.sh/v1alpha1", "ScaledObject", "scaledobjects", asked_by="spec.autoscaling.keda"
)
INTERCEPTOR_ROUTES: Final = Resource(
    "http.keda.sh/v1beta1",
    "InterceptorRoute",
    "interceptorroutes",
    asked_by="spec.autoscaling.keda.http",
    brought_by="KEDA's HTTP add-on, 0.14 or newer",
)
PODS: Final = Resource("v1", "Pod", "pods")
REPLICA_SETS: Final = Resource("apps/v1", "ReplicaSet", "replicasets", metadata_only=True)
LEASES: Final = Resource("coordination.k8s.io/v1", "Lease", "leases")
EVENTS: Final = Resource("events.k8s.io/v1", "Event", "events")

OPTIONAL: Final = (HTTP_ROUTES, GRPC_ROUTES, SCALED_OBJECTS, INTERCEPTOR_ROUTES)
"""Watched only while the API server offers them."""
CHILDREN: Final = {
    resource.kind: resource
    for resource in (
        CONFIG_MAPS,
        SERVICES,
        DEPLOYMENTS,
        INGRESSES,
        AUTOSCALERS,
        DISRUPTION_BUDGETS,
        NETWORK_POLICIES,
        *OPTIONAL,
    )
}
WATCHED: Final = (
    MODELS,
    *(resource for resource in CHILDREN.values() if not resource.optional),
    REPLICA_SETS,
    PODS,
)
"""Watched always."""


class Cluster:
    """Requests to one API server.

    Every method raises ApiUnavailableError when the server can't be asked or asks to come later,
    TransientError when the object changed under the request, and RefusedError when the server
    refuses the content (see ``answers``).
    """

    def __init__(
        self,
        access: Access,
        session: aiohttp.ClientSession,
        *,
        models: str | None = None,
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        """Send requests over a session.

        Args:
            access: where to.
            session: adds the credentials.
            models: the label selector of the InferenceModels that are served; None for all.
            may_write: asked before each write.
        """
        self._server = access.server
        self._session = session
        self._models = models
        self._may_write = may_write
        self._rights = Rights()

    async def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """Read one object; None when there is none."""
        try:
            return await self._json(
                "GET", resource.path(namespace, name), resource.target("get", namespace, name)
            )
        except NotFoundError:
            return None

    async def offers(self, resource: Resource) -> bool:
        """Whether the API server knows the kind."""
        try:
            found = await self._json(
                "GET", resource.path(None).rpartition("/")[0], resource.target("discover", None)
            )
        except NotFoundError:
            return False
        kinds = found.get("resources") or ()
        return any(isinstance(k, dict) and k.get("name") == resource.plural for k in kinds)

    async def list(
        self, resource: Resource, namespace: str | None, *, label: tuple[str, str] | None = None
    ) -> AsyncIterator[Object]:
        """Read all objects of a kind as of one moment: the pages of the list.

        Args:
            resource: the kind.
            namespace: theirs; None for all.
            label: one more that they have, and its value.
        """
        path, target = resource.path(namespace), resource.target("list", namespace)
        size = PAGE_SIZE
        query = {}
        labels = self._selector(resource)
        if label is not None:
            labels = ",".join(filter(None, (labels, "=".join(label))))
        if labels is not None:
            query["labelSelector"] = labels
        while True:
            limit = {"limit": str(size)}
            try:
                page = await self._json(
                    "GET",
                    path,
                    target,
                    query=query | limit,
                    largest=LARGEST_PAGE if size > 1 else LARGEST_OBJECT,
                    accept=_form(resource, "List"),
                )
            except _TooLargeError:
                if size == 1:
                    raise
                size = max(1, size // 4)
                continue
            token = _next_page(page, target)
            yield page
            if not token:
                return
            if token == query.get("continue"):
                raise ApiUnavailableError(f"{target}: the list does not go on; trying again")
            query["continue"] = token

    async def is_before(self, resource: Resource, namespace: str | None, version: str) -> bool:
        """Whether the API server has yet to reach a version, as after a restore of its etcd.

        A watch from such a version is silent until then, and brings nothing of what is before it.
        """
        query = {"limit": "1"}
        labels = self._selector(resource)
        if labels is not None:
            query["labelSelector"] = labels
        target = resource.target("list", namespace)
        path, form = resource.path(namespace), _form(resource, "List")
        page = await self._json(
            "GET", path, target, query=query, largest=LARGEST_OBJECT, accept=form
        )
        return int(page["metadata"]["resourceVersion"]) < int(version)

    async def watch(
        self,
        resource: Resource,
        namespace: str | None,
        version: str,
        on_open: Callable[[], object] = lambda: None,
    ) -> AsyncGenerator[tuple[str, Object], None]:
        """What changes after a version, until the API server ends the watch: types and objects.

        Args:
            resource: the kind.
            namespace: None for all.
            version: of a listing, or of the last that a watch has brought.
            on_open: is called when the API server has accepted the watch.

        Raises:
            ExpiredError: the API server doesn't know any more what changed since the version.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            # Not all at once, after a restart of the API server.
            "timeoutSeconds": str(int(WATCH_SECONDS * random.uniform(0.8, 1.2))),  # noqa: S311
        }
        labels = self._selector(resource)
        if labels is not None:
            query["labelSelector"] = labels
        target = resource.target("watch", namespace)
        try:
            async with self._session.get(
                self._server + resource.path(namespace),
                params=query,
                headers={"Accept": _form(resource)},
                timeout=WATCH_TIMEOUT,
            ) as response:
                if response.status >= HTTPStatus.BAD_REQUEST:
                    answer = await bodies.start(response, LARGEST_ERROR)
                    asked = response.headers.get("Retry-After", "")
                    raise answers.error(target, answers.status(response.status, answer), asked)
                on_open()
                async for line in bodies.lines(response, LARGEST_OBJECT):
                    kind, obj = _event(documents.loads(line), target)
                    if kind == "ERROR":
                        raise answers.error(target, _status(obj))
                    yield kind, obj
        except (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError) as error:
            raise ApiUnavailableError(
                f"{target}: {error or type(error).__name__}; trying again"
            ) from error

    async def apply(
        self, resource: Resource, wanted: Object, *, uid: str | None, subresource: str = ""
    ) -> Object:
        """Server-side apply as the operator's field manager.

        Args:
            resource: the object's kind.
            wanted: all fields that the operator wants to own.
            uid: of the object that is meant; the server refuses to touch another. None creates,
                and an object of that name, whoever's it is, stays untouched.
            subresource: such as ``status``.

        Returns:
            The object as it is now.

        Raises:
            ConflictError: there is another object, or one already.
        """
        precondition = {"resourceVersion": NO_VERSION} if uid is None else {"uid": uid}
        metadata = {**wanted["metadata"], **precondition}
        namespace, name = metadata["namespace"], metadata["name"]
        path = resource.path(namespace, name)
        return await self._json(
            "PATCH",
            f"{path}/{subresource}" if subresource else path,
            resource.target("apply", namespace, name, subresource=subresource),
            query={"fieldManager": names.FIELD_MANAGER, "force": "true"},
            body={**wanted, "metadata": metadata},
            content_type="application/apply-patch+yaml",
        )

    async def rewrite(
        self, resource: Resource, namespace: str, name: str, *, version: int, content: Object
    ) -> Object:
        """Replace whole top-level fields of an object, other than its metadata.

        Args:
            resource: the object's kind.
            namespace: of the object.
            name: of the object.
            version: the resourceVersion that the content was made from.
            content: the fields; None takes one away.

        Raises:
            ConflictError: the object was changed since, or is another one.
        """
        changes = []
        for field, value in content.items():
            gone = value is None
            change = {"op": "remove"} if gone else {"op": "add", "value": value}
            changes.append({**change, "path": f"/{field}"})
        return await self._edit(resource, namespace, name, str(version), changes)

    async def set_field_managers(
        self, resource: Resource, obj: Object, managers: Sequence[Object]
    ) -> Object:
        """Replace the account of who has set what, of an object as it was read.

        Raises:
            ConflictError: it was changed since, or is another one.
        """
        metadata = obj["metadata"]
        change = {"op": "replace", "path": "/metadata/managedFields", "value": managers}
        return await self._edit(
            resource,
            metadata["namespace"],
            metadata["name"],
            metadata["resourceVersion"],
            [change],
        )

    async def _edit(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        version: str,
        changes: Sequence[Object],
    ) -> Object:
        path = "/metadata/resourceVersion"
        return await self._json(
            "PATCH",
            resource.path(namespace, name),
            resource.target("rewrite", namespace, name),
            query={"fieldManager": names.FIELD_MANAGER},
            body=[{"op": "replace", "path": path, "value": version}, *changes],
            content_type="application/json-patch+json",
        )

    async def hold_replicas(
        self, resource: Resource, namespace: str, name: str, *, uid: str, replicas: int
    ) -> Object:
        """Make another field manager than the operator a co-owner of the live replicas.

        An applied field goes back to its default when the last who applied it leaves it out, so
        the operator may leave ``replicas`` out only while somebody else holds them ("Transferring
        ownership" in Kubernetes' documentation of server-side apply).

        Raises:
            ConflictError: the live number is another one by now.
        """
        return await self._json(
            "PATCH",
            resource.path(namespace, name),
            resource.target("apply", namespace, name),
            query={"fieldManager": HANDOVER_MANAGER},
            body={
                "apiVersion": resource.api_version,
                "kind": resource.kind,
                "metadata": {"namespace": namespace, "name": name, "uid": uid},
                "spec": {"replicas": replicas},
            },
            content_type="application/apply-patch+yaml",
        )

    async def annotate(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        uid: str,
        annotations: Mapping[str, str | None],
        version: int | None = None,
    ) -> Object | None:
        """Set annotations of one object; None when it is gone.

        Args:
            resource: the object's kind.
            namespace: of the object.
            name: of the object.
            uid: of the object that is meant.
            annotations: their values; None takes one away.
            version: the resourceVersion that is meant; None for any.

        Raises:
            ConflictError: it is another object, or was changed since.
        """
        metadata = {"uid": uid, "annotations": dict(annotations)}
        if version is not None:
            metadata["resourceVersion"] = str(version)
        return await self.merge(resource, namespace, name, {"metadata": metadata})

    async def merge(
        self, resource: Resource, namespace: str, name: str, patch: Object
    ) -> Object | None:
        """Merge fields into one object; None when it is gone."""
        try:
            return await self._json(
                "PATCH",
                resource.path(namespace, name),
                resource.target("patch", namespace, name),
                query={"fieldManager": names.FIELD_MANAGER},
                body=patch,
                content_type="application/merge-patch+json",
            )
        except NotFoundError:
            return None

    async def events_about(
        self, namespace: str, uid: str, reasons: Iterable[str]
    ) -> Sequence[Object]:
        """The Events about one object; where there are many, some of each of these reasons.

        Anybody who may write Events may write any number of them, in front of all others.
        """
        about = f"regarding.uid={uid}"
        found, are_all = await self._events(namespace, about)
        if are_all:
            return found
        more = [await self._events(namespace, f"{about},reason={reason}") for reason in reasons]
        return [event for events, _ in [(found, are_all), *more] for event in events]

    async def _events(self, namespace: str, fields: str) -> tuple[Sequence[Object], bool]:
        """The first Events with these fields, and whether there are no more."""
        size = PAGE_SIZE
        while True:
            query = {"fieldSelector": fields, "limit": str(size)}
            try:
                page = await self._json(
                    "GET",
                    EVENTS.path(namespace),
                    EVENTS.target("list", namespace),
                    query=query,
                    largest=LARGEST_PAGE,
                )
            except _TooLargeError:
                if size == 1:
                    raise
                size = max(1, size // 4)
                continue
            return page.get("items") or (), not page["metadata"].get("continue")

    async def create(self, resource: Resource, wanted: Object) -> Object:
        """Create an object.

        Raises:
            ConflictError: there is one of that name.
        """
        return await self._create(resource, wanted, {})

    async def try_create(self, resource: Resource, wanted: Object) -> None:
        """Ask whether an object could be created; none is.

        Raises:
            ConflictError: there is one of that name.
        """
        await self._create(resource, wanted, {"dryRun": "All"})

    async def _create(
        self, resource: Resource, wanted: Object, options: Mapping[str, str]
    ) -> Object:
        namespace, name = wanted["metadata"]["namespace"], wanted["metadata"]["name"]
        return await self._json(
            "POST",
            resource.path(namespace),
            resource.target("create", namespace, name),
            # What the API server doesn't know is refused, as in an apply.
            query={
                "fieldManager": names.FIELD_MANAGER,
                "fieldValidation": "Strict",
                **options,
            },
            body=wanted,
        )

    async def replace(self, resource: Resource, wanted: Object) -> Object:
        """Replace an object as it was read.

        Raises:
            ConflictError: it was changed since.
        """
        namespace, name = wanted["metadata"]["namespace"], wanted["metadata"]["name"]
        return await self._json(
            "PUT",
            resource.path(namespace, name),
            resource.target("replace", namespace, name),
            body=wanted,
        )

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> None:
        """Delete just this object; no error when it is gone already."""
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self._json(
                "DELETE",
                resource.path(namespace, name),
                resource.target("delete", namespace, name),
                body=body,
            )
        except NotFoundError:
            return

    def _selector(self, resource: Resource) -> str | None:
        return self._models if resource is MODELS else names.MANAGED_SELECTOR

    async def _json(
        self,
        method: str,
        path: str,
        target: Target,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | Sequence[Object] | None = None,
        content_type: str = "application/json",
        largest: int = LARGEST_OBJECT,
        accept: str = JSON,
    ) -> Object:
        if method != "GET" and not self._may_write():
            raise NotLeadingError(f"{target}: not sent, for another replica may lead")
        try:
            async with self._session.request(
                method,
                self._server + path,
                params=query,
                data=None if body is None else orjson.dumps(body),
                headers={"Content-Type": content_type, "Accept": accept},
                timeout=REQUEST_TIMEOUT,
            ) as response:
                failed = response.status >= HTTPStatus.BAD_REQUEST
                answer = await (
                    bodies.start(response, LARGEST_ERROR)
                    if failed
                    else bodies.read(response, largest)
                )
        except bodies.TooLargeError as error:
            raise _TooLargeError(f"{target}: {error}; trying again") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiUnavailableError(
                f"{target}: {error or type(error).__name__}; trying again"
            ) from error
        if failed:
            found = answers.status(response.status, answer)
            problem = answers.error(target, found, response.headers.get("Retry-After", ""))
            if target.verb not in answers.READING and answers.lacks_right(found):
                self._rights.refused(target, problem)
            raise problem
        self._rights.granted(target)
        try:
            decoded = documents.loads(answer)
        except orjson.JSONDecodeError as error:
            raise ApiUnavailableError(
                f"{target}: the answer is no JSON ({error}); trying again"
            ) from None
        # Something between may answer in place of the API server.
        if not isinstance(decoded, dict):
            raise _odd(target, "no object")
        return decoded


def _form(resource: Resource, suffix: str = "") -> str:
    """The form in which a kind is asked for ("Alternate representations of resources")."""
    if not resource.metadata_only:
        return JSON
    return f"{JSON};as=PartialObjectMetadata{suffix};g=meta.k8s.io;v=v1"


def _odd(target: Target, what: str) -> ApiUnavailableError:
    return ApiUnavailableError(f"{target}: the answer is {what}; trying again")


def _next_page(page: Object, target: Target) -> str:
    """What the next page of a list is asked for with; empty for the last one.

    Raises:
        ApiUnavailableError: this is no page of a list.
    """
    match page:
        case {"metadata": {"resourceVersion": str(), **metadata}}:
            items = page.get("items") or ()
        case _:
            raise _odd(target, "no list")
    if not isinstance(items, list | tuple) or not all(map(_is_object, items)):
        raise _odd(target, "no list of objects")
    return str(metadata.get("continue") or "")


def _event(told: Any, target: Target) -> tuple[str, Object]:
    """Type and object of one event of a watch.

    Raises:
        ApiUnavailableError: it is none.
    """
    match told:
        case {"type": "ERROR", "object": dict(obj)}:
            return "ERROR", obj
        case {"type": str(kind), "object": {"metadata": {"resourceVersion": str()}} as obj}:
            return kind, obj
    raise _odd(target, "no event of a watch")


def _is_object(item: Any) -> bool:
    match item:
        case {"metadata": {"name": str(), "uid": str(), "resourceVersion": str()}}:
            return True
    return False


class _TooLargeError(ApiUnavailableError):
    """The answer is longer than any object is, or than a page is to be."""


def _status(event: Object) -> answers.Status:
    """The Status that an ERROR event of a watch carries."""
    code = event.get("code")
    return answers.status(code if isinstance(code, int) else 500, orjson.dumps(event))


@asynccontextmanager
async def connect(access: Access, *, watches: int) -> AsyncIterator[aiohttp.BaseConnector]:
    """One pool of connections to the API server, for requests and for ``watches`` watches."""
    context = await asyncio.to_thread(access.ssl_context)
    connector = aiohttp.TCPConnector(
        limit=CONNECTIONS + watches, ssl=context, socket_factory=sockets.open_watched
    )
    try:
        yield connector
    finally:
        await connector.close()


def session(
    connector: aiohttp.BaseConnector, *middlewares: ClientMiddlewareType
) -> aiohttp.ClientSession:
    """A session over a pool that it doesn't own, so that kopf may close and renew its own."""
    return aiohttp.ClientSession(
        connector=connector,
        connector_owner=False,
        middlewares=middlewares,
        cookie_jar=aiohttp.DummyCookieJar(),
        # Compressing lists would cost the API server more time than it saves on the way.
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
    )
