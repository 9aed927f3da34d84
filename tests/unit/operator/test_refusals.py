"""What mends a refusal that words alone tell of; they are those of a real API server."""

from __future__ import annotations

from itertools import permutations

import pytest

from inferencemodel_operator import refusals


@pytest.mark.parametrize(
    ("why", "fix"),
    [
        ("exceeded quota: q, requested: pods=1, used: pods=4, limited: pods=4", "ask for less"),
        (
            "failed quota: q: must specify limits.cpu for: poller",
            "set spec.poller.resources.limits.cpu, or have a LimitRange",
        ),
        (
            "failed quota: q: must specify cpu for: model-server; limits.cpu for: "
            "model-server,poller,log-agent",
            "set spec.server.resources.requests.cpu, spec.server.resources.limits.cpu, "
            "spec.poller.resources.limits.cpu, resources.limits.cpu of container log-agent "
            "(spec.template.spec, or where it comes from), or",
        ),
        (
            "maximum memory usage per Container is 100Mi, but limit is 512Mi",
            "lower limits.memory from 512Mi to at most 100Mi in spec.server.resources, "
            "spec.poller.resources or the resources of a container in spec.template.spec, which",
        ),
        (
            "[maximum memory usage per Pod is 150Mi, but limit is 512Mi, minimum cpu usage per "
            "Container is 50m, but request is 20m]",
            "lower limits.memory from 512Mi to at most 150Mi and raise requests.cpu from 20m to at "
            "least 50m in",
        ),
        (
            "maximum cpu usage per Container is 2.  No limit is specified",
            "set limits.cpu to at most 2 in",
        ),
        (
            "cpu max limit to request ratio per Container is 2, but provided ratio is 3",
            "set limits.cpu to at most 2 times requests.cpu in",
        ),
        ('violates PodSecurity "restricted:latest": runAsNonRoot != true', "admission policy"),
        ('error looking up service account vision/x: serviceaccount "x" not found', "create that"),
        ("no PriorityClass with name high was found", "spec.template.priorityClassName"),
    ],
)
def test_refused_pods_are_told_with_what_a_person_can_change(why: str, fix: str) -> None:
    refused = f'pods "m-5d4-x7k2p" is forbidden: {why}'
    assert fix in (refusals.fix(refused) or "")
    assert refusals.reason(refused) == why


@pytest.mark.parametrize(
    "message",
    [
        'admission webhook "w" denied the request: exceeded quota: 7 models',
        'admission webhook "w" denied the request: User "u" cannot patch resource "deployments"',
        "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: maximum cpu usage per team",
    ],
)
def test_the_words_of_a_policy_are_not_taken_for_the_api_servers_own(message: str) -> None:
    assert refusals.fix(message) == refusals.SATISFY_POLICY


@pytest.mark.parametrize(
    "message",
    [
        'admission webhook "w" denied the request: status unknown for quota: q',
        "some words and status unknown for quota: q",
    ],
)
def test_no_others_words_make_a_refusal_pass(message: str) -> None:
    assert not refusals.passes(message)


def test_an_unknown_refusal_has_no_fix() -> None:
    assert refusals.fix('pods "p" is forbidden: something new') is None
    assert refusals.reason("something new") == "something new"


def test_a_refusal_is_told_in_the_same_words_in_whatever_order_its_parts_come() -> None:
    parts = (
        "minimum memory usage per Container is 256Mi, but request is 128Mi",
        "minimum cpu usage per Container is 50m, but request is 20m",
        "maximum cpu usage per Container is 2.  No limit is specified",
        "memory max limit to request ratio per Container is 2, but provided ratio is 4.000000",
    )
    told = {
        (refusals.reason(message), refusals.fix(message))
        for order in permutations(parts)
        for message in [f'pods "m-{len(order)}" is forbidden: [{", ".join(order)}]']
    }
    assert len(told) == 1
    ((why, fix),) = told
    assert all(part in why for part in parts)
    assert fix is not None
    assert fix.index("requests.cpu from 20m") < fix.index("requests.memory from 128Mi")
