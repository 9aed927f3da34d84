"""Which hosts and paths InferenceModels ask for, and who gets one that several ask for.

An Ingress controller or a Gateway merges what all namespaces ask of it. Of two equal rules it obeys
one: ingress-nginx, HAProxy and others that of the older Ingress; a Gateway that of the older route,
then of the first by namespace and name
(https://gateway-api.sigs.k8s.io/reference/spec/#httproutespec). Controllers that give each Ingress
an address of its own, as clouds do, obey both, and the host's DNS record decides. So the older of
two is taken for the one that gets the requests, and the other is told.

A Gateway takes one kind of route for a host, whatever their paths are: of an HTTPRoute and a
GRPCRoute whose hosts intersect the older one again
(https://gateway-api.sigs.k8s.io/reference/spec/#grpcroutespec). So ``*.example.com`` of the one
keeps ``a.example.com`` from the other, where two of a kind stand side by side and the longer one is
obeyed. A route without hosts has those of its listeners, which are in the Gateway: it is compared
with no other kind.

What a spec asks for is soon what its Ingress and routes ask for. While a spec isn't followed, for
it is suspended or can't be understood, only what these ask for counts.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from inferencemodel_operator import names
from inferencemodel_operator.children import interceptor
from inferencemodel_operator.children.paths import exact
from inferencemodel_operator.errors import AddressConflictError
from inferencemodel_operator.observe import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from inferencemodel_operator.cache import Cache
    from inferencemodel_operator.observe.objects import Child, Key, Model
    from inferencemodel_operator.spec import Gateway, InferenceModel, ParentRef

Kind = Literal["Ingress", "HTTPRoute", "GRPCRoute", "InterceptorRoute"]
KINDS: Final = frozenset(("Ingress", "HTTPRoute", "GRPCRoute", "InterceptorRoute"))
"""The kinds of children that ask for an address."""

_FIELDS: Final[dict[Kind, str]] = {
    "Ingress": "spec.ingress.host, spec.ingress.hosts or spec.ingress.path",
    "HTTPRoute": "spec.gateway.hostnames or spec.gateway.path",
    "GRPCRoute": "spec.gateway.grpcHostnames",
    "InterceptorRoute": "the host, for models of one name can't share one behind an interceptor,",
}
_HOSTNAMES: Final = "spec.gateway.hostnames or spec.gateway.grpcHostnames"
MOST: Final = 200
"""Addresses of one Ingress or route; the operator's own have a few for each host."""
_CLASS_ANNOTATION: Final = "kubernetes.io/ingress.class"
_YOUNGEST: Final = "~"
"""Sorts behind every time: what isn't there yet will be younger than all that is."""


class Address(msgspec.Struct, frozen=True):
    """What requests are told apart by: equal ones can't both be obeyed."""

    kind: Kind
    host: str
    """Empty: every host of the Gateway."""
    path: str = ""
    """Without a slash at its end; empty for all."""
    is_exact: bool = False
    gateway: str = ""
    """The parent of a route, as GROUP/KIND/NAMESPACE/NAME."""
    is_whole_host: bool = False
    """All of a host of a Gateway, which the other kind of route can't have as well."""

    @property
    def contested(self) -> Address:
        """The same, as somebody else asks for it who can't be obeyed beside it."""
        if not self.is_whole_host:
            return self
        other: Kind = "GRPCRoute" if self.kind == "HTTPRoute" else "HTTPRoute"
        return msgspec.structs.replace(self, kind=other)

    @property
    def fields(self) -> str:
        """Where it is asked for, and whatever it is contested by."""
        return _HOSTNAMES if self.is_whole_host else _FIELDS[self.kind]

    def __str__(self) -> str:
        return f"{self.host or 'every host'}{self.path or '/'}"


class Listener(msgspec.Struct, frozen=True):
    """Which part of a Gateway an address is asked of; None: every one."""

    section: str | None = None
    port: int | None = None

    def overlaps(self, other: Listener) -> bool:
        """Whether one request can come to both."""
        return (None in (self.section, other.section) or self.section == other.section) and (
            None in (self.port, other.port) or self.port == other.port
        )


Claims = dict[Address, frozenset[Listener]]
_EVERYWHERE: Final = frozenset((Listener(),))


def claims(model: InferenceModel) -> Claims:
    """All addresses that a model asks for."""
    found: Claims = dict.fromkeys(_of_ingress(model), _EVERYWHERE)
    found |= dict.fromkeys(_of_interceptor(model), _EVERYWHERE)
    gateway = model.spec.gateway
    if gateway is not None:
        for parent in gateway.parent_refs:
            listener = Listener(parent.section_name, parent.port)
            for address in _of_routes(model, gateway, parent):
                found[address] = found.get(address, frozenset()) | {listener}
    return found


def live_claims(children: Iterable[Child]) -> Claims:
    """All addresses that a model's Ingress and routes ask for, as they are."""
    found: Claims = {}
    for child in children:
        asked = islice(_of_child(child), MOST) if child.is_whole else ()
        for address, listener in asked:
            found[address] = found.get(address, frozenset()) | {listener}
    return found


def _of_child(child: Child) -> Iterator[tuple[Address, Listener]]:
    spec = msgspec.convert(child.content_object(), wire.Routing).spec
    if child.kind == "Ingress":
        for rule in spec.rules:
            for there in rule.http.paths:
                yield _address("Ingress", rule.host, there.path, there.path_type), Listener()
        return
    if child.kind == "InterceptorRoute":
        for rule in spec.rules:
            for host in rule.hosts:
                # What leads there from within is a Service of the model's own.
                if not host.startswith(f"{names.interceptor(child.name)}.{child.namespace}"):
                    for prefix in rule.paths:
                        yield Address("InterceptorRoute", host, prefix.value), Listener()
        return
    kind: Kind = "HTTPRoute" if child.kind == "HTTPRoute" else "GRPCRoute"
    matches = [match.path for rule in spec.rules for match in rule.matches]
    for parent in spec.parent_refs:
        gateway = _name(parent, child.namespace)
        listener = Listener(parent.section_name, parent.port)
        for host in spec.hostnames or ("",):
            for address in _whole_host(kind, host, parent, gateway):
                yield address, listener
            for path in matches or (wire.RoutePath(),):
                yield _address(kind, host, path.value, path.type, gateway), listener


def _address(kind: Kind, host: str, path: str, path_type: str, gateway: str = "") -> Address:
    is_exact = path_type == "Exact"
    return Address(kind, host, path if is_exact else path.rstrip("/"), is_exact, gateway)


def _of_ingress(model: InferenceModel) -> Iterator[Address]:
    wanted = model.spec.ingress
    if wanted is None:
        return
    is_exact = wanted.path_type == "Exact"
    path = wanted.path if is_exact else wanted.path.rstrip("/")
    for host in wanted.every_host:
        yield Address("Ingress", host, path, is_exact)
        if wanted.path_type == "Prefix":
            for verb in exact(model, wanted.path):
                yield Address("Ingress", host, verb, is_exact=True)


def _of_interceptor(model: InferenceModel) -> Iterator[Address]:
    for host in interceptor.outer_hosts(model):
        for path in interceptor.paths(model):
            yield Address("InterceptorRoute", host, path)


def _of_routes(model: InferenceModel, gateway: Gateway, parent: ParentRef) -> Iterator[Address]:
    name = _name(parent, model.namespace)
    for host in gateway.hostnames or ("",):
        path = gateway.path.rstrip("/")
        yield from _whole_host("HTTPRoute", host, parent, name)
        yield Address("HTTPRoute", host, path, gateway=name)
        for verb in exact(model, gateway.path):
            yield Address("HTTPRoute", host, verb, is_exact=True, gateway=name)
    for host in gateway.grpc_hostnames:
        yield from _whole_host("GRPCRoute", host, parent, name)
        yield Address("GRPCRoute", host, gateway=name)


def _whole_host(
    kind: Kind, host: str, parent: ParentRef | wire.ParentRef, gateway: str
) -> Iterator[Address]:
    """What a route has of a Gateway; of a mesh's Service, where each stands by itself, nothing."""
    if (parent.group, parent.kind) != ("", "Service"):
        yield Address(kind, host, gateway=gateway, is_whole_host=True)


def _name(parent: ParentRef | wire.ParentRef, namespace: str) -> str:
    return f"{parent.group}/{parent.kind}/{parent.namespace or namespace}/{parent.name}"


def _wildcards(host: str) -> Iterator[str]:
    """The wildcards that a host is below; `*.example.com` is below `*.com`, and not itself."""
    labels = host.split(".")
    for first in range(2 if labels[0] == "*" else 1, len(labels)):
        yield ".".join(("*", *labels[first:]))


class AddressBook:
    """Who asks for which address; kept up to date one model at a time."""

    def __init__(self) -> None:
        self._claims: dict[Key, Claims] = {}
        self._holders: dict[Address, set[Key]] = defaultdict(set)
        self._below: dict[Address, set[Address]] = defaultdict(set)
        """All of a host of a Gateway that somebody has, by the wildcards that it is below."""
        self.notify: Callable[[Key], object] = _tell_nobody
        """Called for each model whose addresses another one has taken or given back."""

    def put(self, key: Key, after: Claims) -> None:
        """Take in what a model asks for now."""
        before = self._claims.pop(key, {})
        if after:
            self._claims[key] = after
        for address in before.keys() - after.keys():
            self._holders[address].discard(key)
            if not self._holders[address]:
                del self._holders[address]
                for above in _above(address):
                    self._below[above].discard(address)
                    if not self._below[above]:
                        del self._below[above]
        for address in after.keys() - before.keys():
            self._holders[address].add(key)
            for above in _above(address):
                self._below[above].add(address)
        changed = {a for a in before.keys() | after.keys() if before.get(a) != after.get(a)}
        self._notify(key, changed)

    def touch(self, key: Key) -> None:
        """Take in that an Ingress or a route of a model came, changed or went."""
        self._notify(key, self._claims.get(key, {}))

    def claims(self, key: Key) -> Claims:
        """What a model asks for."""
        return self._claims.get(key, {})

    def rivals(self, key: Key, address: Address) -> Iterator[tuple[Key, Address]]:
        """Who else asks for an address, of the same part of a Gateway, and by which one."""
        own = self.claims(key).get(address, frozenset())
        for contested in self._contested(address):
            for other in self._holders.get(contested, ()):
                theirs = self.claims(other).get(contested, frozenset())
                if other != key and any(a.overlaps(b) for a in own for b in theirs):
                    yield other, contested

    def _contested(self, address: Address) -> Iterator[Address]:
        """What can't be obeyed beside an address."""
        contested = address.contested
        yield contested
        if address.is_whole_host:
            yield from _above(contested)
            yield from self._below.get(contested, ())

    def _notify(self, key: Key, changed: Claims | set[Address]) -> None:
        affected = {
            other
            for address in changed
            for contested in self._contested(address)
            for other in self._holders.get(contested, ())
        }
        for other in affected - {key}:
            self.notify(other)


def _above(address: Address) -> Iterator[Address]:
    """All of a host of a Gateway, with the wildcards that the host is below in its place."""
    if address.is_whole_host:
        for wildcard in _wildcards(address.host):
            yield msgspec.structs.replace(address, host=wildcard)


def _tell_nobody(_: Key) -> None:
    pass


def conflict(cache: Cache, model: Model) -> AddressConflictError | None:
    """What keeps requests from a model: another one that has its host and path before it."""
    for address in cache.addresses.claims(model.key):
        seniority = _seniority(cache, model, address)
        winners = [
            (theirs, other.key, contested)
            for key, contested in cache.addresses.rivals(model.key, address)
            if (other := cache.model(key)) is not None
            and _ingress_class(cache, other, address) == _ingress_class(cache, model, address)
            and (theirs := _seniority(cache, other, contested)) < seniority
        ]
        if winners:
            _, (namespace, name), contested = min(winners, key=lambda winner: winner[:2])
            # What is in other namespaces is not for everybody to know.
            other_one = name if namespace == model.key[0] else None
            both = max(address, contested, key=lambda one: (one.host[:1] != "*", len(one.host)))
            return AddressConflictError(str(both), contested.kind, other_one, address.fields)
    return None


def _seniority(cache: Cache, model: Model, address: Address) -> tuple[str, Key]:
    child = _child(cache, model, address)
    return (child.created if child else "") or _YOUNGEST, model.key


def _ingress_class(cache: Cache, model: Model, address: Address) -> str | None:
    """The class of an Ingress, by the spec or by the cluster's default; None for routes."""
    if address.kind != "Ingress":
        return None
    wanted = model.model.spec.ingress if model.model and model.is_followed else None
    if wanted is not None and wanted.class_name is not None:
        return wanted.class_name
    child = _child(cache, model, address)
    live = msgspec.convert(child.content_object(), wire.Routing) if child else wire.Routing()
    annotations = live.metadata.annotations if wanted is None else wanted.annotations
    return live.spec.ingress_class_name or annotations.get(_CLASS_ANNOTATION)


def _child(cache: Cache, model: Model, address: Address) -> Child | None:
    namespace, name = model.key
    own = names.ingress(name) if address.kind == "Ingress" else names.route(name)
    child = cache.child(address.kind, namespace, own)
    return child if child is not None and child.owner_uid == model.uid else None
