"""The Deployment: pods of a poller and a model server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import orjson

from inferencemodel_operator import names
from inferencemodel_operator.children import essentials, model_server, overlay, pod, poller
from inferencemodel_operator.children.leaving import leaving
from inferencemodel_operator.children.manifest import Manifest, digest, manifest, present, seal
from inferencemodel_operator.errors import InvalidModelError
from inferencemodel_operator.spec import (
    DisruptionBudget,
    InferenceModelSpec,
    NetworkPolicy,
    RollingUpdate,
    Rollout,
    Service,
    TopologySpreadConstraint,
    explicit,
)

if TYPE_CHECKING:
    from inferencemodel_operator.observe.objects import Deployment
    from inferencemodel_operator.settings import Settings
    from inferencemodel_operator.spec import InferenceModel, Strategy, Toleration


def build(model: InferenceModel, settings: Settings) -> Manifest:
    """The Deployment of the InferenceModel's pods.

    Raises:
        InvalidModelError: ``spec.template.spec`` takes away what the pods can't be without.
    """
    template = pod_template(model, settings)
    return manifest(
        model,
        "apps/v1",
        "Deployment",
        names.deployment(model.name),
        {
            "spec": {
                **present(replicas=model.replicas),
                "selector": {"matchLabels": names.selector(model.name)},
                "strategy": _strategy(model.spec.strategy),
                # Which the API server leaves out where it is 0.
                **present(minReadySeconds=model.spec.min_ready_seconds or None),
                "progressDeadlineSeconds": model.spec.progress_deadline_seconds,
                "revisionHistoryLimit": model.spec.revision_history_limit,
                "template": template,
            }
        },
        annotations={
            names.POD_SPEC_HASH_ANNOTATION: pod_spec_hash(model),
            names.TEMPLATE_HASH_ANNOTATION: digest(template),
        },
    )


def _strategy(wanted: Strategy) -> Manifest:
    if wanted.type == "Recreate":
        return {"type": wanted.type}
    # By default no pod leaves before its successor serves: requests never wait for a start.
    room = wanted.rolling_update or RollingUpdate()
    return {
        "type": wanted.type,
        "rollingUpdate": {"maxUnavailable": room.max_unavailable, "maxSurge": room.max_surge},
    }


_FORM: Final = "1"
"""Of the hash below: another one wherever the same resource gets another hash, by a new default for
example. What differs in its form alone was not changed by a user."""


def pod_spec_hash(model: InferenceModel) -> str:
    """A hash that differs whenever a user changes the spec in what concerns the pods.

    It stays the same from release to release, whatever these make of the spec.
    """
    spec = model.spec
    plain = InferenceModelSpec(model=spec.model)
    concerning_pods = msgspec.structs.replace(
        spec,
        model=msgspec.structs.replace(spec.model, version=None, min_version=None),
        replicas=1,
        autoscaling=None,
        disruption_budget=DisruptionBudget(),
        suspend=False,
        service=Service(),
        ingress=None,
        gateway=None,
        network_policy=NetworkPolicy(),
        strategy=plain.strategy,
        min_ready_seconds=plain.min_ready_seconds,
        progress_deadline_seconds=plain.progress_deadline_seconds,
        revision_history_limit=plain.revision_history_limit,
        # A pod that is to leave its Services by itself has a probe for it.
        rollout=Rollout(drain=spec.rollout.drain),
    )
    return f"{_FORM}-{digest(explicit(concerning_pods))}"


def same_form(one: str, other: str) -> bool:
    """Whether two hashes of `pod_spec_hash` can be compared."""
    return one.partition("-")[0] == other.partition("-")[0]


def template_hash(deployment: Manifest) -> str:
    """The hash of the pod template that was built."""
    return str(deployment["metadata"]["annotations"][names.TEMPLATE_HASH_ANNOTATION])


def mark(deployment: Manifest, update: str | None) -> Manifest:
    """The Deployment with the mark that the operator changes its template by itself, if any."""
    if update is None:
        return deployment
    return _annotate(deployment, {names.TEMPLATE_UPDATE_ANNOTATION: update})


LARGEST_HELD: Final = 100 * 1024
"""Bytes. An object's annotations have 256 kB altogether."""


def hold(deployment: Manifest, template: Manifest, live: Deployment) -> Manifest:
    """The Deployment with the pod template that it has.

    The template is kept as an annotation, so that what somebody changes there by hand goes back.
    """
    text = orjson.dumps(template, option=orjson.OPT_SORT_KEYS)
    held = {**deployment, "spec": {**deployment["spec"], "template": template}}
    return _annotate(
        held,
        {
            names.TEMPLATE_HASH_ANNOTATION: live.template_hash or digest(template),
            names.TEMPLATE_UPDATE_ANNOTATION: live.template_update,
            names.HELD_TEMPLATE_ANNOTATION: text.decode() if len(text) <= LARGEST_HELD else None,
        },
    )


def held_template(deployment: Manifest) -> Manifest | None:
    """The pod template that `hold` has kept in a live Deployment."""
    annotations = deployment["metadata"].get("annotations") or {}
    try:
        found = orjson.loads(annotations.get(names.HELD_TEMPLATE_ANNOTATION, "null"))
    except ValueError:
        # Somebody else's: what the Deployment has is read back instead.
        return None
    return found if isinstance(found, dict) else None


def _annotate(deployment: Manifest, changes: dict[str, str | None]) -> Manifest:
    metadata = deployment["metadata"]
    annotations = {**metadata["annotations"], **changes}
    given = {name: text for name, text in annotations.items() if text is not None}
    return seal({**deployment, "metadata": {**metadata, "annotations": given}})


def pod_template(model: InferenceModel, settings: Settings) -> Manifest:
    """The pods. A change of anything here restarts them, one by one.

    What counts more comes later: the operator's defaults, the typed fields of the spec, and
    ``spec.template.spec`` on top.

    Raises:
        InvalidModelError: that takes away what the pods can't be without.
    """
    template = _own_template(model, settings)
    if model.spec.template.spec:
        template["spec"] = _overlaid(model, template["spec"])
    return template


def _overlaid(model: InferenceModel, spec: Manifest) -> Manifest:
    try:
        merged = overlay.merge(spec, model.spec.template.spec)
    except overlay.OverlayError as error:
        problem, *others = [error.problem]
    else:
        problems = essentials.problems(spec, merged)
        if not problems:
            return merged
        problem, *others = problems
    fix = problem.fix
    if others:
        fix += f" (to be corrected as well: {', '.join(other.field for other in others[:3])})"
    whole_name = f"{model.namespace}/{model.name}"
    raise InvalidModelError(whole_name, problem.field, problem.why, fix)


def _own_template(model: InferenceModel, settings: Settings) -> Manifest:
    """The pods without what ``spec.template.spec`` says of them."""
    template, source = model.spec.template, model.spec.source
    return {
        "metadata": present(
            labels={**template.metadata.labels, **names.labels(model.name)},
            annotations={
                **template.metadata.annotations,
                names.STORAGE_URI_ANNOTATION: model.spec.model.storage_uri,
            },
        ),
        "spec": present(
            # Always named: left out, the API server would keep the one that was named before.
            serviceAccountName=source.service_account_name or "default",
            # Neither container talks to the API server.
            automountServiceAccountToken=False,
            enableServiceLinks=False,
            terminationGracePeriodSeconds=leaving(model.spec.drain.seconds).grace,
            securityContext=pod.security(model),
            # Once each: the API server merges them by name, and takes no apply with two of one.
            imagePullSecrets=[
                {"name": name}
                for name in dict.fromkeys(secret.name for secret in template.image_pull_secrets)
            ],
            priorityClassName=template.priority_class_name,
            topologySpreadConstraints=_spread(model),
            nodeSelector=template.node_selector,
            tolerations=[_toleration(toleration) for toleration in template.tolerations],
            affinity=template.affinity,
            initContainers=[poller.container(model, settings)],
            containers=[model_server.container(model)],
            volumes=pod.volumes(model),
        ),
    }


_EVENLY = (
    TopologySpreadConstraint(topology_key="kubernetes.io/hostname"),
    TopologySpreadConstraint(topology_key="topology.kubernetes.io/zone"),
)
"""By default, as far as there is room: one host's or one zone's end takes few pods."""


def _spread(model: InferenceModel) -> list[Manifest]:
    given = model.spec.template.topology_spread_constraints
    return [
        {
            "topologyKey": constraint.topology_key,
            "maxSkew": constraint.max_skew,
            "whenUnsatisfiable": constraint.when_unsatisfiable,
            "labelSelector": {"matchLabels": names.selector(model.name)},
            # Else the pods that a rollout replaces would count as well.
            "matchLabelKeys": ["pod-template-hash"],
        }
        for constraint in (_EVENLY if given is None else given)
    ]


def _toleration(toleration: Toleration) -> Manifest:
    return present(
        key=toleration.key,
        operator=toleration.operator,
        value=toleration.value,
        effect=toleration.effect,
        tolerationSeconds=toleration.toleration_seconds,
    )
