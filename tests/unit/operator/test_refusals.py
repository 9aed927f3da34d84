"""What mends a refusal that words alone tell of; they are those of a real API server."""

from __future__ import annotations

import pytest

from inferencemodel_operator import refusals
from inferencemodel_operator.children.poller import RESOURCES


@pytest.mark.parametrize(
    ("why", "fix"),
    [
        ("exceeded quota: q, requested: pods=1, used: pods=4, limited: pods=4", "ask for less"),
        ("failed quota: q: must specify limits.cpu for: poller", "a LimitRange of the namespace"),
        ("failed quota: q: must specify limits.cpu for: model-server", "spec.server.resources"),
        ("maximum memory usage per Container is 100Mi, but limit is 512Mi", "LimitRange"),
        (
            "[minimum cpu usage per Container is 50m, but request is 20m, maximum memory usage per "
            "Pod is 150Mi, but limit is 512Mi]",
            "LimitRange",
        ),
        (
            "cpu max limit to request ratio per Container is 2, but provided ratio is 3",
            "LimitRange",
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


def test_a_limit_range_is_told_what_the_poller_needs() -> None:
    fix = refusals.fix('pods "p" is forbidden: minimum cpu usage per Container is 50m, but 20m')
    assert fix is not None
    for kind in RESOURCES.values():
        assert all(amount in fix for amount in kind.values())


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
