"""What mends a refusal whose cause the API server tells in words alone.

A denial by admission has neither a code nor a cause of its own ("Forbidden" is all of them), and
the condition of a Deployment whose pods are refused is a text. How such a text begins is the API
server's own writing; what follows may be anybody's, so it is never searched.
"""

from __future__ import annotations

import re
from typing import Final

from inferencemodel_operator.children.poller import RESOURCES

_OBJECT: Final = re.compile(r'\S+(?: "[^"]*")? is (?:forbidden|invalid): ')
"""How the API server names what it refuses; a pod has another name at each attempt."""
_REQUESTS, _LIMITS = RESOURCES["requests"], RESOURCES["limits"]
_POLLER: Final = (
    f"the poller's are fixed: requests of {_REQUESTS['cpu']} of cpu and {_REQUESTS['memory']} of "
    f"memory, a limit of {_LIMITS['memory']} of memory"
)

GIVE_RIGHT: Final = "give the operator's service account this right (manifests/base/rbac.yaml)"
SATISFY_POLICY: Final = "satisfy the admission policy named here, or exempt the namespace from it"
REPAIR_WEBHOOK: Final = "bring back the webhook named here, or delete its configuration"
RAISE_QUOTA: Final = (
    "raise the namespace's ResourceQuota or ask for less (spec.replicas, spec.server.resources)"
)
SPECIFY: Final = (
    "set what is missing for model-server in spec.server.resources; for the poller, whose "
    "resources are fixed, a LimitRange of the namespace can give a default"
)
CHANGE_RANGE: Final = (
    f"change the namespace's LimitRange, or spec.server.resources where they are meant; {_POLLER}"
)

_FIXES: Final = tuple(
    (re.compile(beginning), fix)
    for beginning, fix in (
        # plugin/pkg/auth/authorizer, k8s.io/apiserver/pkg/endpoints/handlers/responsewriters
        (r'User "[^"]*" cannot ', GIVE_RIGHT),
        # plugin/pkg/admission/resourcequota/controller.go
        (r"exceeded quota: ", RAISE_QUOTA),
        (r"failed quota: \S+: must specify ", SPECIFY),
        (r"(failed|insufficient) quota", RAISE_QUOTA),
        # plugin/pkg/admission/limitranger/admission.go
        (
            r"\[?((minimum|maximum) \S+ usage per |\S+ max limit to request ratio per )",
            CHANGE_RANGE,
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
    """The refusal without the name of what is refused."""
    named = _OBJECT.match(message)
    return message[named.end() :] if named else message


def fix(message: str) -> str | None:
    """What a person can do about a refusal; None for one that is not known."""
    why = reason(message)
    return next((fix for beginning, fix in _FIXES if beginning.match(why)), None)


def passes(message: str) -> bool:
    """Whether the refusal heals by waiting, though its code says otherwise."""
    return _PASSING.match(reason(message)) is not None
