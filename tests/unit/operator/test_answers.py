"""What the API server's error answers mean; they are copied from a real one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inferencemodel_operator import answers
from inferencemodel_operator.answers import Target
from inferencemodel_operator.errors import (
    ApiUnavailableError,
    ConflictError,
    ExpiredError,
    NamespaceTerminatingError,
    NoRightError,
    NotFoundError,
    OperatorError,
    PermanentError,
    RefusedError,
    StatusRefusedError,
    TransientError,
)

DEPLOYMENT = Target(verb="apply", kind="Deployment", name="vision/m")
STATUS = Target(verb="apply", kind="InferenceModel", name="vision/m", subresource="status")
OTHER_UID = {"reason": "FieldValueInvalid", "message": "immutable", "field": "metadata.uid"}


def answer(code: int, message: str, reason: str = "", *causes: dict[str, str]) -> answers.Status:
    details = {"name": "m", "kind": "deployments", "causes": list(causes) or None}
    body = {"kind": "Status", "message": message, "reason": reason, "details": details}
    return answers.status(code, json.dumps(body).encode())


def forbidden(why: str) -> answers.Status:
    return answer(403, f'deployments.apps "m" is forbidden: {why}', "Forbidden")


def invalid(field: str, message: str, reason: str = "FieldValueInvalid") -> answers.Status:
    cause = {"reason": reason, "message": message, "field": field}
    return answer(422, f'Deployment.apps "m" is invalid: {field}: {message}', "Invalid", cause)


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (answer(410, "too old resource version", "Expired"), ExpiredError),
        (answer(404, 'namespaces "vision" not found', "NotFound"), NotFoundError),
        (answers.status(404, b"404 page not found\n"), NotFoundError),
        (answer(409, "the object has been modified", "Conflict"), ConflictError),
        (answer(409, "object is being deleted", "AlreadyExists"), ConflictError),
        (answer(422, "metadata.uid: field is immutable", "Invalid", OTHER_UID), ConflictError),
        (
            answer(
                403,
                'configmaps "m" is forbidden: whatever the words are',
                "Forbidden",
                {"reason": "NamespaceTerminating", "message": "x", "field": "metadata.namespace"},
            ),
            NamespaceTerminatingError,
        ),
        (answer(405, "create not allowed", "MethodNotAllowed"), TransientError),
        (
            forbidden(
                "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for "
                "APIVersion inferencemodel.dev/v1alpha1 Kind InferenceModel"
            ),
            TransientError,
        ),
        (forbidden("status unknown for quota: q, resources: count/services"), TransientError),
        (answer(429, "too many requests", "TooManyRequests"), ApiUnavailableError),
        (answer(500, "etcdserver: request timed out"), ApiUnavailableError),
        (answer(503, "starting", "ServiceUnavailable"), ApiUnavailableError),
        (answers.status(502, b"<html>bad gateway</html>"), ApiUnavailableError),
        (answer(504, "timeout", "Timeout"), ApiUnavailableError),
    ],
)
def test_what_heals_by_waiting_is_told_by_code_reason_and_cause(
    found: answers.Status, kind: type[OperatorError]
) -> None:
    error = answers.error(DEPLOYMENT, found)
    assert type(error) is kind
    assert str(error).startswith("apply Deployment vision/m: ")


@pytest.mark.parametrize(
    ("found", "fix"),
    [
        (
            forbidden('User "system:serviceaccount:a:b" cannot patch resource "deployments" in'),
            "give the operator's service account this right",
        ),
        (forbidden("exceeded quota: q, requested: count/x=1, used: 0"), "raise the namespace's"),
        (
            answer(400, 'admission webhook "w" denied the request: cannot use resource quota'),
            "satisfy the admission policy named here",
        ),
        (
            answer(409, 'admission webhook "w" denied the request: field is immutable', "Conflict"),
            "satisfy the admission policy named here",
        ),
        (
            answer(500, 'admission webhook "w" denied the request without explanation'),
            "satisfy the admission policy named here",
        ),
        (
            answer(
                422,
                "deployments \"m\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p' "
                "denied request: exceeded quota: of words",
                "Invalid",
                {"message": "ValidatingAdmissionPolicy 'p' with binding 'p' denied request"},
            ),
            "satisfy the admission policy named here",
        ),
        (
            invalid("spec.selector", "Invalid value: {}: field is immutable"),
            "`kubectl --namespace=vision delete deployment m`",
        ),
        (
            invalid("data", "field is immutable when `immutable` is set", "FieldValueForbidden"),
            "delete it, and the operator creates it",
        ),
        (invalid("spec.x", "Invalid value: 7"), "correct the field of the InferenceModel"),
        (answer(413, "Request entity too large", "RequestEntityTooLarge"), "correct the field"),
        (
            answer(
                500,
                "failed to create typed patch object (vision/m; apps/v1, Kind=Deployment): "
                '.spec.template.spec.imagePullSecrets: duplicate entries for key [name="x"]',
            ),
            "correct the field of the InferenceModel",
        ),
    ],
)
def test_a_refusal_says_what_mends_it(found: answers.Status, fix: str) -> None:
    error = answers.error(DEPLOYMENT, found)
    assert type(error) is RefusedError
    assert str(error).startswith("Deployment vision/m was refused by the API server: ")
    assert found.message in str(error)
    assert fix in str(error)


@pytest.mark.parametrize(
    ("field", "message", "fix"),
    [
        (
            "spec.loadBalancerClass",
            'Invalid value: "b": may not change once set',
            "take the change of spec.service.loadBalancerClass back, or delete it, and the "
            "operator creates it as it is wanted now: "
            "`kubectl --namespace=vision delete service m`",
        ),
        (
            "spec.ipFamilies[0]",
            'Invalid value: "IPv6": may not change once set',
            "take the change of spec.service.ipFamilies back, or delete it",
        ),
        (
            "spec.clusterIPs[0]",
            'Invalid value: "10.96.1.2": expected an IPv6 value as indicated by `ipFamilies[0]`',
            "take the change of spec.service.ipFamilies back, or delete it",
        ),
        (
            "spec.ipFamilyPolicy",
            "Invalid value: RequireDualStack: Cannot configure dual-stack services",
            "correct spec.service.ipFamilyPolicy of the InferenceModel",
        ),
        ("spec.clusterIP", "Invalid value: x", "correct the field of the InferenceModel"),
    ],
)
def test_a_refused_field_of_a_service_is_named_as_the_user_knows_it(
    field: str, message: str, fix: str
) -> None:
    service = Target(verb="apply", kind="Service", name="vision/m")
    error = answers.error(service, invalid(field, message))
    assert type(error) is RefusedError
    assert error.invalid
    assert fix in str(error)


def test_a_webhook_that_does_not_answer_is_waited_for_and_named() -> None:
    call = 'failed calling webhook "w.example.com": failed to call webhook: connection refused'
    found = answer(500, f"Internal error occurred: {call}", "InternalError", {"message": call})
    error = answers.error(DEPLOYMENT, found)
    assert isinstance(error, ApiUnavailableError)
    assert "w.example.com" in str(error)
    assert "bring back the webhook named here" in str(error)


@pytest.mark.parametrize(
    ("found", "fix"),
    [
        (
            answer(500, "failed to create typed patch object: .status.new: field not declared"),
            "install the CRD of the operator's own release",
        ),
        (
            invalid("status.conditions[0].reason", "Unsupported value", "FieldValueNotSupported"),
            "install the CRD of the operator's own release",
        ),
        (answer(400, 'admission webhook "w" denied the request: no'), "satisfy the admission"),
    ],
)
def test_a_refused_status_is_no_fault_of_the_inferencemodel(
    found: answers.Status, fix: str
) -> None:
    error = answers.error(STATUS, found)
    assert type(error) is StatusRefusedError
    assert isinstance(error, PermanentError)
    assert fix in str(error)
    assert "correct the field of the InferenceModel" not in str(error)


@pytest.mark.parametrize(
    "target",
    [STATUS, Target(verb="list", kind="Pod", name=""), Target(verb="watch", kind="Pod", name="n")],
)
def test_a_right_that_the_account_lacks_is_no_fault_of_any_inferencemodel(target: Target) -> None:
    error = answers.error(target, forbidden('User "u" cannot do that to resource "x"'))
    assert type(error) is NoRightError
    assert str(error).startswith(f"{target}: ")
    assert "give the operator's service account this right" in str(error)


def test_what_others_answer_is_handed_on_on_one_line_and_within_bounds() -> None:
    endless = answer(400, 'admission webhook "w" denied the request: ' + "no\n" * 100_000)
    for found in (endless, answers.status(500, b"\xff" * 3_000_000)):
        assert len(str(answers.error(DEPLOYMENT, found))) < 2 * answers.MESSAGE_LIMIT
        assert "\n" not in str(answers.error(DEPLOYMENT, found))


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"null", b"[]", b'{"details": 7}', b'{"code": "x"}', b'{"details": null}'),
        b'{"x": ' + b"[" * 100_000,
    ],
)
def test_an_answer_that_is_no_status_is_an_error_all_the_same(body: Any) -> None:
    assert isinstance(answers.error(DEPLOYMENT, answers.status(500, body)), ApiUnavailableError)
