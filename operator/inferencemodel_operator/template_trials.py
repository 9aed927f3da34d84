"""Asks the API server about a pod of ``spec.template.spec`` before the Deployment is changed.

A Deployment's template is taken for more than its pods are: neither Pod Security, nor a LimitRange,
nor a quota is asked about it, and a pod that is refused shows only when replicas are being
replaced. So a pod is made of the template as a dry run, once for each template: what the Deployment
has been given already is not asked about again, by whichever operator.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from inferencemodel_operator import bounds, refusals
from inferencemodel_operator.answers import MESSAGE_LIMIT
from inferencemodel_operator.apply import RECHECK_SECONDS
from inferencemodel_operator.children import deployment as deployments
from inferencemodel_operator.children import origin, overlay
from inferencemodel_operator.cluster import DEPLOYMENTS, PODS
from inferencemodel_operator.errors import ConflictError, RefusedError, TransientError
from inferencemodel_operator.values import Quantity

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal

    from inferencemodel_operator.children.manifest import Manifest
    from inferencemodel_operator.cluster import Cluster
    from inferencemodel_operator.observe.objects import Deployment, Key
    from inferencemodel_operator.spec import InferenceModel

_FIRST_SECONDS: Final = 1.0
"""How soon a refusal is asked about again: what admission looks at, such as a ServiceAccount, may
be created a moment later. Each time it is twice as long."""
_REST_SECONDS: Final = RECHECK_SECONDS * 0.9
_KIND: Final = re.compile(r'(Pod|Deployment) in version "[^"]*" cannot be handled as a \1: ')
_COUNTED: Final = re.compile(r"\bspec\.[A-Za-z]+\[\d+\]")
"""An item of a pod's list by its number."""
_EXHAUSTED: Final = re.compile(
    r"exceeded quota: .*?, requested: (?P<requested>\S+), used: \S+, limited: (?P<limited>\S+)$"
)
_NO_DRY_RUN: Final = "does not support dry run"
"""Of a webhook with side effects (k8s.io/apiserver/pkg/admission/plugin/webhook/errors)."""


class _Held(msgspec.Struct, frozen=True):
    """A template that was refused."""

    template: str
    """The hash of it."""
    problem: RefusedError
    until: float
    seconds: float


class TemplateTrials:
    """What the API server has said of templates that no Deployment has yet."""

    def __init__(self, cluster: Cluster, later: Callable[[Key, float], None]) -> None:
        """Begin with nothing.

        Args:
            cluster: is asked.
            later: has an InferenceModel looked at again after so many seconds.
        """
        self._cluster = cluster
        self._later = later
        self._held: dict[Key, _Held] = {}

    async def check(self, model: InferenceModel, wanted: Manifest, live: Deployment | None) -> None:
        """Ask about the pods of a Deployment, where its template is a new one.

        Args:
            model: the InferenceModel; one without ``spec.template.spec`` has nothing to ask.
            wanted: the Deployment.
            live: the one that there is.

        Raises:
            RefusedError: the API server doesn't take such pods.
            TransientError: it may tell later.
        """
        template = deployments.template_hash(wanted)
        if not model.spec.template.spec or (live and live.template_hash == template):
            self.forget(model.key)
            return
        held = self._held.get(model.key)
        if held is not None and held.template != template:
            held = None
        now = time.monotonic()
        if held is not None and now < held.until:
            raise held.problem
        try:
            await self._cluster.try_create(PODS, _pod(model, wanted))
        except RefusedError as refusal:
            if _says_nothing(refusal.problem):
                return
            problem = explained(await self._of_template(refusal, wanted), model, wanted)
            seconds = _REST_SECONDS if refusal.invalid else _FIRST_SECONDS
            if held is not None:
                seconds = min(held.seconds * 2, _REST_SECONDS)
            self._held[model.key] = _Held(template, problem, now + seconds, seconds)
            self._later(model.key, seconds)
            raise problem from None
        self.forget(model.key)

    async def _of_template(self, refusal: RefusedError, wanted: Manifest) -> RefusedError:
        """The same refusal by the template's own count of containers and volumes.

        Webhooks have added theirs to a pod before it is judged, a mesh's proxy in front of all.
        """
        if not (refusal.invalid and _COUNTED.search(refusal.problem)):
            return refusal
        trial = {**wanted, "metadata": {**wanted["metadata"], "name": _name(wanted)}}
        try:
            await self._cluster.try_create(DEPLOYMENTS, trial)
        except RefusedError as of_template:
            # Something else may be in a Deployment's way, as a webhook that takes no dry run.
            is_same = of_template.invalid and "spec.template.spec." in of_template.problem
            return of_template if is_same else refusal
        except (ConflictError, TransientError):
            pass
        return refusal

    def forget(self, key: Key) -> None:
        """Drop what is remembered of an InferenceModel."""
        self._held.pop(key, None)


def explained(refusal: RefusedError, model: InferenceModel, wanted: Manifest) -> RefusedError:
    """The same refusal with the fields of the InferenceModel instead of the pod's."""
    is_pod = refusal.kind == PODS.kind
    said = _KIND.sub("", refusals.reason(refusal.problem))
    text = origin.translated(
        said,
        wanted["spec"]["template"]["spec"],
        model.spec.template.spec,
        prefix="" if is_pod else "spec.template.",
    )
    # Of a quantity that is none, say, the API server doesn't tell which.
    named = "the field that is named here" if "spec." in text else overlay.FIELD
    fix = refusals.fix(refusal.problem) or f"correct {named}"
    # Of the Deployment, though a pod was asked about: that is what stays as it is.
    return RefusedError(
        DEPLOYMENTS.kind,
        f"{model.namespace}/{wanted['metadata']['name']}",
        bounds.text(text, MESSAGE_LIMIT),
        fix,
        invalid=refusal.invalid,
    )


def _name(wanted: Manifest) -> str:
    """As a ReplicaSet would name it, and nobody has: of what is there, nothing is learnt."""
    return f"{wanted['metadata']['name']}-trial-{deployments.template_hash(wanted)[:8]}"


def _pod(model: InferenceModel, wanted: Manifest) -> Manifest:
    template = wanted["spec"]["template"]
    metadata = {
        **template["metadata"],
        "namespace": model.namespace,
        "name": _name(wanted),
        # Policies look for who answers for it.
        "ownerReferences": wanted["metadata"]["ownerReferences"],
    }
    return {
        "apiVersion": PODS.api_version,
        "kind": PODS.kind,
        "metadata": metadata,
        "spec": template["spec"],
    }


def _says_nothing(problem: str) -> bool:
    """Whether a refusal isn't one of the template.

    A quota that is used up has room again when an older pod goes, and a webhook with side effects
    can't be asked by a dry run.
    """
    if _NO_DRY_RUN in problem:
        return True
    found = _EXHAUSTED.match(refusals.reason(problem))
    if found is None:
        return False
    limits = _amounts(found["limited"])
    return all(
        amount <= limits[name]
        for name, amount in _amounts(found["requested"]).items()
        if name in limits
    )


def _amounts(text: str) -> dict[str, Decimal]:
    found = {}
    for part in text.split(","):
        name, _, amount = part.partition("=")
        with suppress(ValueError, ArithmeticError):
            found[name] = Quantity(amount).value
    return found
