"""KEDA and its HTTP add-on on the embedded cluster, built here, by their own manifests."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import yaml

from devcluster import addons, build
from devcluster.cluster import Cluster
from tests.support import kinds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devcluster.client import Api

NAMESPACE: Final = "keda"
_PROGRAMS: Final = {
    "keda-operator": "keda-operator",
    "keda-add-ons-http-operator": "keda-http-operator",
    "keda-add-ons-http-interceptor": "keda-http-interceptor",
    "keda-add-ons-http-scaler": "keda-http-scaler",
}
"""What runs in which Deployment."""
_LEFT_OUT: Final = ("keda-admission", "keda-metrics-apiserver")
"""Neither is needed between zero and one: what refuses a second trigger, and the figures above."""
_WITHOUT_THEM: Final = ("--enable-webhook-patching=false", "--enable-apiservice-patching=false")


@contextmanager
def installed(api: Api) -> Iterator[None]:
    """KEDA, its HTTP add-on's operator, scaler and interceptor, all ready.

    Raises:
        devcluster.errors.BuildError: one of the programs doesn't build.
    """
    programs = build.ensure(build.KEDA_TOOLS)
    images = Cluster().images()
    for program in programs.values():
        addons.load_program(program, images)
    wanted = [
        _fitted(obj, programs)
        for sources in (kinds.keda(), kinds.keda_http())
        for obj in yaml.safe_load_all(api.kubectl("kustomize", str(sources / "config/default")))
        if not _is_left_out(obj)
    ]
    # Objects of kinds that come with the first ones can't be applied beside them.
    _apply(api, _defining(wanted))
    try:
        _apply(api, [obj for obj in wanted if obj["kind"] != "ScaledObject"])
        for name in _PROGRAMS:
            waiting = ("rollout", "status", f"deployment/{name}", "--timeout=240s")
            api.kubectl(f"--namespace={NAMESPACE}", *waiting, timeout=250)
        yield
    finally:
        _remove(api, wanted)


def _apply(api: Api, objects: list[dict[str, Any]]) -> None:
    given = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    api.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=given)


def _is_left_out(obj: dict[str, Any]) -> bool:
    # An API or a webhook that nothing serves gets in the way of the whole cluster.
    answering = ("APIService", "ValidatingWebhookConfiguration")
    return obj["kind"] in answering or (
        obj["kind"] == "Deployment" and obj["metadata"]["name"] in _LEFT_OUT
    )


def _fitted(obj: dict[str, Any], programs: dict[str, Path]) -> dict[str, Any]:
    """An object, with the image that was built here."""
    if obj["kind"] != "Deployment":
        return obj
    pod = obj["spec"]["template"]["spec"]
    name = obj["metadata"]["name"]
    for container in pod["containers"]:
        container.pop("command", None)
        container["image"] = addons.program_image(programs[_PROGRAMS[name]])
        container["imagePullPolicy"] = "Never"
        container["resources"] = {"requests": {"cpu": "10m"}}
        for probe in ("livenessProbe", "readinessProbe"):
            container[probe]["initialDelaySeconds"] = 0
        if name == "keda-operator":
            container["args"] += _WITHOUT_THEM
    return obj


def _defining(wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [obj for obj in wanted if obj["kind"] in ("Namespace", "CustomResourceDefinition")]


def _remove(api: Api, wanted: list[dict[str, Any]]) -> None:
    """Take away everything: the kinds first, for KEDA has to let its finalizers go."""
    crds = [o["metadata"]["name"] for o in wanted if o["kind"] == "CustomResourceDefinition"]
    api.kubectl("delete", "scaledobjects", "--all", "--all-namespaces", "--timeout=60s")
    kinds.remove(api.kubectl, *crds)
    others = [o for o in wanted if o["kind"] not in ("CustomResourceDefinition", "ScaledObject")]
    given = json.dumps({"apiVersion": "v1", "kind": "List", "items": others})
    api.kubectl("delete", "--ignore-not-found", "--wait=false", "-f", "-", stdin=given)
