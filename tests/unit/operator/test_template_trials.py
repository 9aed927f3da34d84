"""Pods of ``spec.template.spec`` that the API server is asked about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from inferencemodel_operator import template_trials
from inferencemodel_operator.children import deployment
from inferencemodel_operator.children.overlay import FIELD
from inferencemodel_operator.cluster import DEPLOYMENTS, PODS, Resource
from inferencemodel_operator.errors import ApiUnavailableError, OperatorError, RefusedError
from inferencemodel_operator.observe.objects import Deployment
from inferencemodel_operator.observe.wire import DeploymentStatus
from inferencemodel_operator.settings import Settings
from inferencemodel_operator.spec import InferenceModel, decode
from inferencemodel_operator.template_trials import TemplateTrials

if TYPE_CHECKING:
    from inferencemodel_operator.children.manifest import Manifest

OVERLAY: dict[str, Any] = {"containers": [{"name": "logs"}]}


def model(overlay: dict[str, Any]) -> InferenceModel:
    return decode(
        {
            "metadata": {"name": "m", "namespace": "vision", "uid": "u"},
            "spec": {"model": {"storageUri": "gs://models/m"}, "template": {"spec": overlay}},
        }
    )


def build(overlay: dict[str, Any]) -> Manifest:
    return deployment.build(model(overlay), Settings())


def live(wanted: Manifest) -> Deployment:
    return Deployment(
        status=DeploymentStatus(),
        replicas=1,
        holds_replicas=True,
        revision="1",
        template_hash=deployment.template_hash(wanted),
    )


class ApiServer:
    """Answers as it is told to."""

    def __init__(self) -> None:
        self.answer: OperatorError | None = None
        self.of_template: OperatorError | None = None
        """Its answer about the Deployment."""
        self.asked: list[Manifest] = []

    async def try_create(self, resource: Resource, wanted: Manifest) -> None:
        if resource is DEPLOYMENTS:
            assert wanted["metadata"]["name"] == self.asked[-1]["metadata"]["name"]
            assert wanted["spec"]["template"]["spec"] == self.asked[-1]["spec"]
            if self.of_template is not None:
                raise self.of_template
            return
        assert resource is PODS
        self.asked.append(wanted)
        if self.answer is not None:
            raise self.answer


class Stage:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server, self.now, self.later = ApiServer(), 1000.0, list[float]()
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        self.trials = TemplateTrials(self.server, self._later)  # type: ignore[arg-type]

    def _later(self, key: tuple[str, str], seconds: float) -> None:
        assert key == ("vision", "m")
        self.later.append(seconds)

    async def check(
        self, overlay: dict[str, Any] = OVERLAY, there: Deployment | None = None
    ) -> RefusedError | None:
        try:
            await self.trials.check(model(overlay), build(overlay), there)
        except RefusedError as refusal:
            return refusal
        return None


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def refused(problem: str, *, invalid: bool = False) -> RefusedError:
    return RefusedError("Pod", "vision/m-trial", problem, "a fix", invalid=invalid)


INVALID = refused(
    'Pod "m-trial" is invalid: spec.containers[1].image: Required value', invalid=True
)


async def test_a_new_template_is_asked_about_once_as_a_pod_of_it(stage: Stage) -> None:
    assert await stage.check() is None
    (pod,) = stage.server.asked
    template = build(OVERLAY)["spec"]["template"]
    assert pod["spec"] == template["spec"]
    assert pod["metadata"]["labels"] == template["metadata"]["labels"]
    (owner,) = pod["metadata"]["ownerReferences"]
    assert owner["kind"] == "InferenceModel", "a policy may ask for it"
    assert await stage.check(there=live(build(OVERLAY))) is None
    assert len(stage.server.asked) == 1, "the Deployment has it"


async def test_each_template_is_asked_about_by_a_name_of_its_own(stage: Stage) -> None:
    await stage.check()
    await stage.check({"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["store"]}]})
    one, other = (pod["metadata"]["name"] for pod in stage.server.asked)
    assert one != other
    # A pod that somebody has called so would be in the way for ever.
    assert "m-trial" not in (one, other)
    assert all(name.startswith("m-trial-") for name in (one, other))


async def test_nobody_asks_without_an_overlay_or_for_what_the_deployment_has(stage: Stage) -> None:
    assert await stage.check({}) is None
    assert await stage.check(there=live(build(OVERLAY))) is None
    assert stage.server.asked == []


async def test_a_refusal_names_the_field_of_the_inferencemodel_and_what_to_do(
    stage: Stage,
) -> None:
    stage.server.answer = INVALID
    problem = await stage.check()
    assert str(problem) == (
        "Deployment vision/m was refused by the API server: "
        "spec.template.spec.containers[name=logs].image: Required value; "
        "correct the field that is named here"
    )


@pytest.mark.parametrize(
    ("of_template", "container"),
    [
        (
            RefusedError(
                "Deployment",
                "vision/m-trial",
                'Deployment.apps "m-trial" is invalid: '
                "spec.template.spec.containers[1].image: Required value",
                "a fix",
                invalid=True,
            ),
            "logs",
        ),
        # It can't be told: the pod's own count is all that there is.
        (RefusedError("Deployment", "vision/m-trial", "denied", "a fix"), "model-server"),
        (
            RefusedError(
                "Deployment",
                "vision/m-trial",
                'admission webhook "a.b" does not support dry run',
                "a fix",
                invalid=True,
            ),
            "model-server",
        ),
        (ApiUnavailableError("gone"), "model-server"),
        (None, "model-server"),
    ],
)
async def test_a_container_that_a_webhook_has_put_in_front_is_not_counted(
    stage: Stage, of_template: OperatorError | None, container: str
) -> None:
    words = 'Pod "m-trial" is invalid: spec.containers[0].image: Required value'
    stage.server.answer = refused(words, invalid=True)
    stage.server.of_template = of_template
    told = str(await stage.check())
    named = {"logs": f"{FIELD}.containers[name=logs]", "model-server": "spec.server"}[container]
    assert f"{named}.image: Required value" in told


async def test_where_the_api_server_names_no_field_the_whole_is_to_be_corrected(
    stage: Stage,
) -> None:
    # pkg/api/resource/quantity.go: it doesn't know whose quantity that is.
    stage.server.answer = refused("quantities must match the regular expression '^x$'")
    assert str(await stage.check()).endswith("'^x$'; correct spec.template.spec")


async def test_a_refused_template_is_not_asked_about_again_until_its_time_has_come(
    stage: Stage,
) -> None:
    stage.server.answer = INVALID
    first = await stage.check()
    assert await stage.check() is first
    assert len(stage.server.asked) == 1
    stage.now += stage.later[0] + 1
    assert await stage.check() is not None
    assert len(stage.server.asked) == 2
    stage.server.answer = None
    assert await stage.check({"hostPID": True}) is None
    assert len(stage.server.asked) == 3, "another template is asked about at once"


async def test_what_admission_refuses_is_asked_about_soon_and_then_seldom(stage: Stage) -> None:
    stage.server.answer = refused('pods "m-trial" is forbidden: error looking up service account a')
    for _ in range(9):
        assert await stage.check() is not None
        stage.now += stage.later[-1]
    assert stage.later == [1, 2, 4, 8, 16, 32, 54, 54, 54]


QUOTA = 'pods "m-trial" is forbidden: exceeded quota: q, requested: {}, used: {}, limited: {}'


@pytest.mark.parametrize(
    ("problem", "stops"),
    [
        (QUOTA.format("limits.memory=2Gi,pods=1", "limits.memory=4Gi,pods=3",
                      "limits.memory=4Gi,pods=3"), False),
        (QUOTA.format("limits.memory=64Gi", "limits.memory=4Gi", "limits.memory=10Gi"), True),
        ('pods "m-trial" is forbidden: failed quota: q: must specify limits.cpu for: logs', True),
        ('admission webhook "a.b" does not support dry run', False),
        ('admission webhook "a.b" denied the request: no', True),
        ('pods "m-trial" is forbidden: violates PodSecurity "restricted:latest": x', True),
    ],
)  # fmt: skip
async def test_what_says_nothing_of_the_template_stops_nothing(
    stage: Stage, problem: str, stops: bool
) -> None:
    stage.server.answer = refused(problem)
    assert (await stage.check() is not None) is stops


async def test_an_api_server_that_can_t_be_asked_is_asked_again(stage: Stage) -> None:
    stage.server.answer = ApiUnavailableError("gone; trying again")
    with pytest.raises(ApiUnavailableError):
        await stage.check()
    assert stage.later == [], "by the queue's own backoff"


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        (
            'Deployment.apps "m" is invalid: spec.template.spec.containers[1].image: Required',
            "server: spec.template.spec.containers[name=logs].image: Required",
        ),
        (
            'Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: '
            'unknown field "spec.template.spec.containers[1].imag"',
            "server: strict decoding error: unknown field "
            '"spec.template.spec.containers[name=logs].imag"',
        ),
    ],
)
def test_a_refusal_of_the_deployment_itself_is_translated_as_well(problem: str, told: str) -> None:
    refusal = RefusedError("Deployment", "vision/m", problem, "x", invalid=True)
    explained = template_trials.explained(refusal, model(OVERLAY), build(OVERLAY))
    assert told in str(explained)
    assert explained.invalid
