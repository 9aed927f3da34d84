"""What mends a refusal whose cause the API server tells in words alone.

A denial by admission has neither a code nor a cause of its own ("Forbidden" is all of them), and
the condition of a Deployment whose pods are refused is a text. How such a text begins is the API
server's own writing; what follows may be anybody's, so it is never searched.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from inferencemodel_operator import names

if TYPE_CHECKING:
    from collections.abc import Callable

_OBJECT: Final = re.compile(r'\S+(?: "[^"]*")? is (?:forbidden|invalid): ')
"""How the API server names what it refuses; a pod has another name at each attempt."""

GIVE_RIGHT: Final = "give the operator's service account this right (manifests/base/rbac.yaml)"
SATISFY_POLICY: Final = "satisfy the admission policy named here, or exempt the namespace from it"
REPAIR_WEBHOOK: Final = "bring back the webhook named here, or delete its configuration"
RAISE_QUOTA: Final = (
    "raise the namespace's ResourceQuota or ask for less (spec.replicas, spec.server.resources, "
    "spec.poller.resources)"
)
_RESOURCES: Final = {
    names.SERVER_CONTAINER: "spec.server.resources",
    names.POLLER_CONTAINER: "spec.poller.resources",
}
"""Which field says what a container requests and may use."""

# pkg/quota/v1/evaluator/core/pods.go
_MISSING: Final = re.compile(r"([a-z0-9./-]+) for: ([a-z0-9,.-]+)")
# plugin/pkg/admission/limitranger/admission.go
_RANGE: Final = re.compile(
    r"(?P<bound>minimum|maximum) (?P<name>\S+) usage per \w+ is (?P<amount>[\w.]*\w)"
    r"(?:\.\s+No (?P<absent>request|limit) is specified"
    r"|, but (?P<kind>request|limit) is (?P<given>[\w.]+))"
    r"|(?P<other>\S+) max limit to request ratio per \w+ is (?P<ratio>[\w.]+), but"
)
# Each of these begins one of the list; plugin/pkg/admission/limitranger collects them from maps.
_RANGES: Final = re.compile(r"\[(?=minimum |maximum |\S+ max limit )(.*)\]", re.DOTALL)
_NEXT_RANGE: Final = re.compile(r", (?=(?:minimum|maximum) \S+ usage per |\S+ max limit to )")


def _specify(why: str) -> str:
    """What is missing where a quota counts it, field by field."""
    missing = [
        _resource(container, field)
        for name, containers in _MISSING.findall(why)
        for container in containers.split(",")
        for field in (name if "." in name else f"requests.{name}",)
    ]
    fields = ", ".join(dict.fromkeys(missing)) or "what is missing"
    return f"set {fields}, or have a LimitRange of the namespace give defaults"


def _resource(container: str, field: str) -> str:
    """The field that says how much of something a container requests or may use."""
    if container in _RESOURCES:
        return f"{_RESOURCES[container]}.{field}"
    return (
        f"resources.{field} of container {container} (spec.template.spec, or where it comes from)"
    )


def _change_range(why: str) -> str:
    """What a LimitRange wants otherwise."""
    changes = list(dict.fromkeys(_change(found) for found in _RANGE.finditer(why)))
    what, fields = " and ".join(changes) or "give what it asks for", ", ".join(_RESOURCES.values())
    return (
        f"{what} in {fields} or the resources of a container in spec.template.spec, whichever it "
        "is about, or change the namespace's LimitRange"
    )


def _change(found: re.Match[str]) -> str:
    if found["ratio"]:
        other = found["other"].strip("[")
        return f"set limits.{other} to at most {found['ratio']} times requests.{other}"
    amount = f"{'at least' if found['bound'] == 'minimum' else 'at most'} {found['amount']}"
    if found["absent"]:
        return f"set {found['absent']}s.{found['name']} to {amount}"
    verb = "raise" if found["bound"] == "minimum" else "lower"
    return f"{verb} {found['kind']}s.{found['name']} from {found['given']} to {amount}"


_FIXES: Final[tuple[tuple[re.Pattern[str], str | Callable[[str], str]], ...]] = tuple(
    (re.compile(beginning), fix)
    for beginning, fix in (
        # plugin/pkg/auth/authorizer, k8s.io/apiserver/pkg/endpoints/handlers/responsewriters
        (r'User "[^"]*" cannot ', GIVE_RIGHT),
        # plugin/pkg/admission/resourcequota/controller.go
        (r"exceeded quota: ", RAISE_QUOTA),
        (r"failed quota: \S+: must specify ", _specify),
        (r"(failed|insufficient) quota", RAISE_QUOTA),
        # plugin/pkg/admission/limitranger/admission.go
        (
            r"\[?((minimum|maximum) \S+ usage per |\S+ max limit to request ratio per )",
            _change_range,
        ),
        # k8s.io/apiserver/pkg/admission/plugin/webhook
        (r"(Internal error occurred: )?failed calling webhook ", REPAIR_WEBHOOK),
        (r'admission webhook "[^"]*" denied the request', SATISFY_POLICY),
        (r"ValidatingAdmissionPolicy '", SATISFY_POLICY),
        # plugin/pkg/admission/security/podsecurity
        (r"violates PodSecurity ", SATISFY_POLICY),
        # plugin/pkg/admission/serviceaccount
        (
            r"error looking up service account ",
            "create that ServiceAccount, or correct spec.source.serviceAccountName",
        ),
        # plugin/pkg/admission/priority
        (
            r"no PriorityClass with name ",
            "create that PriorityClass, or correct spec.template.priorityClassName",
        ),
    )
)
_PASSING: Final = re.compile(
    # The API server looks only now and then which kinds there are, ...
    r"cannot set blockOwnerDeletion .*cannot find RESTMapping"
    # ... and a quota counts for something only when it was counted once.
    r"|status unknown for quota: "
)


def reason(message: str) -> str:
    """The refusal without the name of what is refused, in the same words for the same refusal."""
    named = _OBJECT.match(message)
    why = message[named.end() :] if named else message
    ranges = _RANGES.fullmatch(why.rstrip())
    # The API server tells them in another order each time.
    return f"[{', '.join(sorted(_NEXT_RANGE.split(ranges[1])))}]" if ranges else why


def fix(message: str) -> str | None:
    """What a person can do about a refusal; None for one that is not known."""
    why = reason(message)
    found = next((fix for beginning, fix in _FIXES if beginning.match(why)), None)
    return found(why) if callable(found) else found


def lacks_right(message: str) -> bool:
    """Whether it is the operator's account that may not do it."""
    return fix(message) == GIVE_RIGHT


def passes(message: str) -> bool:
    """Whether the refusal heals by waiting, though its code says otherwise."""
    return _PASSING.match(reason(message)) is not None
