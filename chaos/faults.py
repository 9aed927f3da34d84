"""The faults, each on real parts: ``begin`` does it and tells what it takes, ``end`` undoes it.

A begin that finds nothing to hit raises NothingThereError; the run goes on with the next one.
"""

from __future__ import annotations

import json
import random
import signal
import ssl
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import grpc

from chaos.fleet import FLEET, NAMESPACE, Model
from chaos.ground import OPERATOR, OPERATORS, SYSTEM, UnreadableError
from chaos.proxy import HONEST, Proxy, Treatment
from chaos.seen import Taken
from chaos.watching import is_ready, kind_of
from devcluster import DevclusterError, paths
from devcluster.certs import Certificates
from devcluster.controlplane import API_SERVER
from devcluster.network import NODE_ADDRESS
from inferencemodel_operator import names

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chaos.ground import Ground, Process


class NothingThereError(Exception):
    """What the fault would hit is not there now."""


class Fault(ABC):
    """One fault; the number it was drawn with chooses among what is there."""

    def __init__(self, ground: Ground, number: int) -> None:
        """Touch nothing yet."""
        self.ground = ground
        self.chance = random.Random(number)  # noqa: S311

    @abstractmethod
    def begin(self) -> Taken:
        """Do it.

        Raises:
            NothingThereError: there is nothing to hit.
        """

    def end(self) -> None:  # noqa: B027  most come back by themselves
        """Put back what does not come back by itself."""

    def choose(self, of: Sequence[Any]) -> Any:
        """One of several, always the same for the same number and the same several."""
        if not of:
            raise NothingThereError(type(self).__name__)
        return self.chance.choice(of)

    def pods(self, namespace: str, selector: str = "") -> list[Any]:
        """The pods of a namespace by their names, without those that leave.

        Raises:
            NothingThereError: the API server doesn't tell.
        """
        try:
            found = self.ground.pods(namespace, selector)
        except UnreadableError as error:
            raise NothingThereError(str(error)) from error
        there = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
        return sorted(there, key=lambda pod: str(pod["metadata"]["name"]))

    def kill(self, pods: Sequence[Any], wanted: Callable[[Process], bool]) -> Any:
        """Kill a process of one of these pods, and return the pod."""
        by_uid = {pod["metadata"]["uid"]: pod for pod in pods}
        found = sorted(
            (each for each in self.ground.processes() if each.pod in by_uid and wanted(each)),
            key=lambda each: str(by_uid[each.pod]["metadata"]["name"]),
        )
        victim = self.choose(found)
        victim.identity.signal(signal.SIGKILL)
        return by_uid[victim.pod]


def _name(pod: Any) -> str:
    return str(pod["metadata"]["name"])


def _all_of(going: Sequence[Any], there: Sequence[Any]) -> frozenset[str]:
    """The models that none but these pods serve: of several replicas none is missed."""
    gone = {_name(pod) for pod in going}
    left = {_model(pod) for pod in there if _name(pod) not in gone and is_ready(pod)}
    return frozenset(_model(pod) for pod in going) - left


def _model(pod: Any) -> str:
    return str(pod["metadata"].get("labels", {}).get(names.MODEL_LABEL, ""))


def _one(pod: Any, what: str) -> Taken:
    return Taken(pods=frozenset({_name(pod)}), what=f"{what} of {_name(pod)}")


# -- programs in pods -----------------------------------------------------------------------------


class KillModelServer(Fault):
    """The container starts again."""

    def begin(self) -> Taken:
        pod = self.kill(self.pods(NAMESPACE), lambda each: kind_of(each) == "model server")
        return _one(pod, "model server")


class KillPoller(Fault):
    """Its supervisor starts it again, and the model server goes on: no request may fail."""

    def begin(self) -> Taken:
        pod = self.kill(self.pods(NAMESPACE), lambda each: kind_of(each) == "poller")
        return Taken(what=f"poller of {_name(pod)}")


class KillSupervisor(Fault):
    """The container ends, and so the pod leaves its Services until it runs again."""

    def begin(self) -> Taken:
        pod = self.kill(self.pods(NAMESPACE), lambda each: kind_of(each) == "supervisor")
        return _one(pod, "supervisor")


class _KillOperator(Fault):
    leads: ClassVar[bool]

    def begin(self) -> Taken:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{OPERATORS}/leases/{OPERATOR}"
        try:
            holder = self.ground.read(path)["spec"].get("holderIdentity", "")
        except UnreadableError as error:
            raise NothingThereError(str(error)) from error
        pods = [
            pod for pod in self.pods(OPERATORS) if holder.startswith(f"{_name(pod)}_") == self.leads
        ]
        pod = self.kill(pods, lambda each: kind_of(each) == "operator")
        return Taken(what=_name(pod))


class KillOperatorLeader(_KillOperator):
    """The standby takes over."""

    leads = True


class KillOperatorStandby(_KillOperator):
    """Nobody notices."""

    leads = False


class RestartOperator(Fault):
    """As an upgrade does it, in the middle of whatever goes on."""

    def begin(self) -> Taken:
        self.ground.try_kubectl(
            f"--namespace={OPERATORS}", "rollout", "restart", f"deployment/{OPERATOR}"
        )
        return Taken(what=OPERATOR)


class KillDns(Fault):
    """Who knows the addresses already goes on."""

    def begin(self) -> Taken:
        pod = self.kill(self.pods(SYSTEM, "k8s-app=kube-dns"), lambda each: each.is_a("coredns"))
        return Taken(what=_name(pod))


class KillIngressController(Fault):
    """What it forwards at that moment is lost."""

    def begin(self) -> Taken:
        pods = [pod for pod in self.pods(SYSTEM) if _name(pod).startswith("traefik")]
        pod = self.kill(pods, lambda each: each.is_a("traefik"))
        return _one(pod, "ingress controller")


class DeletePod(Fault):
    """As a drain does: the pod is asked to go, and serves until nobody comes any more."""

    def begin(self) -> Taken:
        there = self.pods(NAMESPACE)
        pod = self.choose(there)
        self.ground.try_kubectl(
            f"--namespace={NAMESPACE}", "delete", "pod", _name(pod), "--wait=false"
        )
        return Taken(models=_all_of([pod], there), what=_name(pod))


# -- nodes ----------------------------------------------------------------------------------------


class _OnNode(Fault):
    """Something of one node."""

    node = ""

    def pick(self) -> str:
        self.node = self.choose([node.name for node in self.ground.nodes()])
        return self.node

    def taken(self) -> Taken:
        return Taken(nodes=frozenset({self.node}), what=self.node)


class _KillNodeProgram(_OnNode):
    program: ClassVar[str]

    def begin(self) -> Taken:
        try:
            self.ground.cluster.kill_program(f"{self.pick()}/{self.program}")
        except DevclusterError as error:
            raise NothingThereError(str(error)) from error
        return Taken(what=self.node)

    def end(self) -> None:
        self.ground.cluster.start_node(self.node)


class KillKubelet(_KillNodeProgram):
    """Its pods go on."""

    program = "kubelet"


class KillContainerd(_KillNodeProgram):
    """Its containers go on, but nobody can ask after them: their probes may be missed."""

    program = "containerd"


class KillKubeProxy(_KillNodeProgram):
    """Its rules stay."""

    program = "kube-proxy"


class StopNode(_OnNode):
    """As without power."""

    def begin(self) -> Taken:
        self.ground.cluster.stop_node(self.pick())
        return self.taken()

    def end(self) -> None:
        self.ground.cluster.start_node(self.node)


class CutNode(_OnNode):
    """It goes on alone."""

    def begin(self) -> Taken:
        self.ground.cluster.cut_node(self.pick(), "all")
        return self.taken()

    def end(self) -> None:
        self.ground.cluster.heal_node(self.node)


class CutNodeFromControlPlane(CutNode):
    """Which is where requests come from as well."""

    def begin(self) -> Taken:
        self.ground.cluster.cut_node(self.pick(), "control-plane")
        return self.taken()


class FillNode(_OnNode):
    """The kubelet ends pods of it, and takes no new ones."""

    def begin(self) -> Taken:
        self.ground.cluster.fill_node(self.pick())
        return self.taken()

    def end(self) -> None:
        self.ground.cluster.heal_node(self.node)


class DrainNode(_OnNode):
    """Its pods are asked to go, as far as their budgets let them."""

    def begin(self) -> Taken:
        there = self.pods(NAMESPACE)
        self.ground.try_kubectl("cordon", self.pick())
        self.ground.try_kubectl(
            *("drain", self.node, "--ignore-daemonsets", "--delete-emptydir-data"),
            *(f"--pod-selector={names.MANAGED_SELECTOR}", "--timeout=15s"),
        )
        going = [pod for pod in there if pod["spec"].get("nodeName") == self.node]
        return Taken(models=_all_of(going, there), what=self.node)

    def end(self) -> None:
        self.ground.kubectl("uncordon", self.node)


class DeleteNode(_OnNode):
    """Its pods are deleted with it, until its kubelet comes and says that it is there."""

    def begin(self) -> Taken:
        try:
            self.ground.cluster.kill_program(f"{self.pick()}/kubelet")
        except DevclusterError as error:
            raise NothingThereError(str(error)) from error
        self.ground.try_kubectl("delete", "node", self.node, "--wait=false")
        return self.taken()

    def end(self) -> None:
        self.ground.cluster.start_node(self.node)


# -- the control plane ----------------------------------------------------------------------------


class _KillControl(Fault):
    programs: ClassVar[tuple[str, ...]]

    def begin(self) -> Taken:
        program = self.choose(self.programs)
        try:
            self.ground.cluster.kill_program(program)
        except DevclusterError as error:
            raise NothingThereError(str(error)) from error
        return Taken(reporting=True, hearing=True, what=program)

    def end(self) -> None:
        self.ground.cluster.start_control_plane()


class KillApiServer(_KillControl):
    """What runs goes on."""

    programs = (API_SERVER,)


class KillEtcd(_KillControl):
    """The API server can read and write nothing."""

    programs = ("etcd",)


class KillControllers(_KillControl):
    """No pod gets a successor, or a node."""

    programs = ("kube-controller-manager", "kube-scheduler")


class RefuseApi(Fault):
    """The operator is told 429, 500 or 503, or nothing at all, for a part of what it asks."""

    def begin(self) -> Taken:
        proxy = self.ground.api_proxy
        proxy.treatment = self.choose(
            (
                Treatment(statuses=(429, 500, 503), part=0.3),
                Treatment(statuses=(429,), part=1.0),
                Treatment(away=True, part=0.5),
                Treatment(delay=3.0, part=0.5),
            )
        )
        return Taken(reporting=True, what=str(proxy.treatment))

    def end(self) -> None:
        self.ground.api_proxy.treatment = HONEST


def api_proxy() -> Proxy:
    """A proxy in front of the API server, with its certificate."""
    certificates = Certificates(paths.STATE / "pki")
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificates.crt(API_SERVER), certificates.key(API_SERVER))
    asked = ssl.create_default_context(cafile=str(certificates.crt("ca")))
    return Proxy(NODE_ADDRESS, "https://127.0.0.1:6443", served=served, asked=asked)


class CompactEtcd(Fault):
    """Whoever watches from before is told that its place is gone."""

    def begin(self) -> Taken:
        try:
            listed = self.ground.read("/api/v1/namespaces")
        except UnreadableError as error:
            raise NothingThereError(str(error)) from error
        revision = int(listed["metadata"]["resourceVersion"])
        # CompactionRequest: revision = 1, physical = 2.
        request = b"\x08" + _varint(revision) + b"\x10\x01"
        try:
            with grpc.insecure_channel(f"unix:{paths.RUN}/etcd-clients") as channel:
                call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                    "/etcdserverpb.KV/Compact"
                )
                call(request, timeout=10)
        except grpc.RpcError as error:
            raise NothingThereError(str(error)) from error
        return Taken(what=f"at {revision}")


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


class RotateApiCertificate(Fault):
    """The API server starts anew with another certificate of the same authority."""

    def begin(self) -> Taken:
        (paths.STATE / "pki" / f"{API_SERVER}.cnf").unlink(missing_ok=True)
        return Taken(reporting=True, hearing=True, what=API_SERVER)

    def end(self) -> None:
        self.ground.cluster.start_control_plane()


# -- stores ---------------------------------------------------------------------------------------


class _Store(Fault):
    """What a store's proxy does to answers: what is served is served on."""

    treatments: ClassVar[tuple[Treatment, ...]]
    scheme = ""

    def begin(self) -> Taken:
        proxies = self.ground.stores.proxies
        self.scheme = self.choose(sorted(proxies))
        proxies[self.scheme].treatment = self.choose(self.treatments)
        return Taken(what=f"{self.scheme}: {proxies[self.scheme].treatment}")

    def end(self) -> None:
        self.ground.stores.proxies[self.scheme].treatment = HONEST


class StoreAway(_Store):
    """No answer."""

    treatments = (Treatment(away=True), Treatment(away=True, part=0.5))


class StoreRefuses(_Store):
    """Answers that say no."""

    treatments = (
        Treatment(statuses=(500, 503)),
        Treatment(statuses=(429,)),
        Treatment(statuses=(403,)),
        Treatment(statuses=(404,)),
        Treatment(statuses=(500,), part=0.5),
    )


class StoreSlow(_Store):
    """Late answers."""

    treatments = (Treatment(delay=1.0), Treatment(delay=8.0, part=0.5))


class StoreLies(_Store):
    """Other bytes than were uploaded, or not all."""

    treatments = (Treatment(flip=True, part=0.5), Treatment(keep=0.5, part=0.5))


class _Hiding(Fault):
    hidden: tuple[Model, tuple[int, ...]] | None = None

    def numbers(self, there: list[int]) -> list[int]:
        """Which of the versions go."""
        raise NotImplementedError

    def begin(self) -> Taken:
        stores = self.ground.stores
        models = [m for m in FLEET if m.scheme != "pvc" and stores.versions.get(m.name)]
        model = self.choose(models)
        there = [n for n in sorted(stores.versions[model.name]) if stores.has(model, n)]
        going = self.numbers(there)
        if not going:
            raise NothingThereError(model.name)
        for number in going:
            stores.hide(model, number)
        self.hidden = (model, tuple(going))
        return Taken(what=f"{model.name}: {going}")

    def end(self) -> None:
        if self.hidden:
            model, numbers = self.hidden
            for number in numbers:
                self.ground.stores.restore(model, number)


class StoreEmptied(_Hiding):
    """No version of a model is left, for a while."""

    def numbers(self, there: list[int]) -> list[int]:
        return there


class StoreFromAnOldCopy(_Hiding):
    """The newest versions of a model are not there, for a while."""

    def numbers(self, there: list[int]) -> list[int]:
        return there[-2:] if len(there) > 2 else []


class NotificationsAway(Fault):
    """Versions come by the next look all the same."""

    def begin(self) -> Taken:
        self.ground.stores.notifications.cut()
        return Taken(what="Pub/Sub")

    def end(self) -> None:
        self.ground.stores.notifications.mend()


# -- objects --------------------------------------------------------------------------------------


class DeleteChild(Fault):
    """Something that belongs to a model is deleted by hand; it comes back."""

    KINDS = ("service", "ingress", "configmap", "poddisruptionbudget", "deployment")

    def begin(self) -> Taken:
        model, kind = self.choose(FLEET), self.choose(self.KINDS)
        name = names.versions_config_map(model.name) if kind == "configmap" else model.name
        done = self.ground.try_kubectl(
            f"--namespace={NAMESPACE}", "delete", kind, name, "--wait=false"
        )
        hit = kind in ("service", "ingress", "deployment")
        return Taken(
            models=frozenset({model.name}) if hit else frozenset(),
            what=f"{kind} {name}: {done.strip()}",
        )


class EditChild(Fault):
    """What the operator applies is edited by hand; it is put right."""

    def begin(self) -> Taken:
        model = self.choose(FLEET)
        kind, patch = self.choose(
            (
                ("service", {"spec": {"selector": {"app": "nobody"}}}),
                ("deployment", {"spec": {"replicas": 0}}),
                ("deployment", {"spec": {"template": {"metadata": {"labels": {"by": "hand"}}}}}),
                ("ingress", {"metadata": {"labels": {names.INSTANCE_LABEL: "other"}}}),
                ("configmap", {"data": {"target-version": "1"}}),
            )
        )
        name = names.versions_config_map(model.name) if kind == "configmap" else model.name
        done = self.ground.try_kubectl(
            *(f"--namespace={NAMESPACE}", "patch", kind, name, "--type=merge"),
            f"--patch={json.dumps(patch)}",
        )
        hit = kind == "service" or patch == {"spec": {"replicas": 0}}
        return Taken(
            models=frozenset({model.name}) if hit else frozenset(),
            what=f"{kind} {name} {json.dumps(patch)}: {done.strip()}",
        )


class EditAssignment(Fault):
    """A pod is told by hand to serve another version; it is told the right one again."""

    def begin(self) -> Taken:
        pod = self.choose(self.pods(NAMESPACE))
        text = self.choose(("1", "999", "", "none of them"))
        self.ground.try_kubectl(
            *(f"--namespace={NAMESPACE}", "annotate", "pod", _name(pod), "--overwrite"),
            f"{names.TARGET_VERSION_ANNOTATION}={text}",
        )
        return Taken(what=f"{_name(pod)}: {text!r}")


class StealLease(Fault):
    """Somebody who is nobody holds the operator's Lease: nobody leads until it has expired."""

    def begin(self) -> Taken:
        now = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
        spec = {"holderIdentity": "nobody", "renewTime": now, "acquireTime": now}
        done = self.ground.try_kubectl(
            *(f"--namespace={OPERATORS}", "patch", "lease", OPERATOR, "--type=merge"),
            f"--patch={json.dumps({'spec': spec})}",
        )
        return Taken(what=done.strip())


class OlderDefinition(Fault):
    """The definition of an older release, without the words of this one, and this one again."""

    def begin(self) -> Taken:
        path = (
            f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{names.PLURAL}.{names.GROUP}"
        )
        try:
            found = self.ground.read(path)
        except UnreadableError as error:
            raise NothingThereError(str(error)) from error
        older = older_definition(found)
        done = self.ground.try_kubectl("replace", "-f", "-", stdin=json.dumps(older))
        return Taken(what=done.strip())

    def end(self) -> None:
        self.ground.kubectl("apply", "--server-side", "--force-conflicts", "-f", "crds")


def older_definition(definition: dict[str, Any]) -> dict[str, Any]:
    """A definition as a release before could have had it: without columns, with no rules."""
    older: dict[str, Any] = json.loads(json.dumps(definition))
    for field in ("resourceVersion", "managedFields", "uid", "creationTimestamp", "generation"):
        older["metadata"].pop(field, None)
    older.pop("status", None)
    for version in older["spec"]["versions"]:
        version.pop("additionalPrinterColumns", None)
        _without(version["schema"]["openAPIV3Schema"], "x-kubernetes-validations")
    return older


def _without(schema: Any, key: str) -> None:
    if isinstance(schema, dict):
        schema.pop(key, None)
        for value in schema.values():
            _without(value, key)
    elif isinstance(schema, list):
        for value in schema:
            _without(value, key)


FAULTS: dict[str, type[Fault]] = {
    "kill-model-server": KillModelServer,
    "kill-poller": KillPoller,
    "kill-supervisor": KillSupervisor,
    "kill-operator-leader": KillOperatorLeader,
    "kill-operator-standby": KillOperatorStandby,
    "restart-operator": RestartOperator,
    "kill-dns": KillDns,
    "kill-ingress-controller": KillIngressController,
    "delete-pod": DeletePod,
    "kill-kubelet": KillKubelet,
    "kill-containerd": KillContainerd,
    "kill-kube-proxy": KillKubeProxy,
    "stop-node": StopNode,
    "cut-node": CutNode,
    "cut-node-from-control-plane": CutNodeFromControlPlane,
    "fill-node": FillNode,
    "drain-node": DrainNode,
    "delete-node": DeleteNode,
    "kill-api-server": KillApiServer,
    "kill-etcd": KillEtcd,
    "kill-controllers": KillControllers,
    "refuse-api": RefuseApi,
    "compact-etcd": CompactEtcd,
    "rotate-api-certificate": RotateApiCertificate,
    "store-away": StoreAway,
    "store-refuses": StoreRefuses,
    "store-slow": StoreSlow,
    "store-lies": StoreLies,
    "store-emptied": StoreEmptied,
    "store-from-an-old-copy": StoreFromAnOldCopy,
    "notifications-away": NotificationsAway,
    "delete-child": DeleteChild,
    "edit-child": EditChild,
    "edit-assignment": EditAssignment,
    "steal-lease": StealLease,
    "older-definition": OlderDefinition,
}
"""By the names of the plan's kinds."""
