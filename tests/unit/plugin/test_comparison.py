"""Two versions side by side."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from kubectl_inferencemodel.comparison import Comparison, compare
from kubectl_inferencemodel.comparison_display import for_programs, render
from kubectl_inferencemodel.errors import AnswerError
from model_poller.status import (
    CheckResult,
    GoldenStatus,
    Interface,
    PollerStatus,
    SignatureSpec,
    SourceStatus,
    TensorSpec,
    VersionState,
    VersionStatus,
    encode,
)
from tests.unit.plugin.views import model, rollout

if TYPE_CHECKING:
    from tests.unit.plugin.api import ApiServer

SCORES = {"scores": TensorSpec(dtype="float32", shape=(-1, 5))}
PREDICT = "predict"


def signatures(**inputs: TensorSpec) -> Interface:
    signature = SignatureSpec(method=PREDICT, inputs=inputs, outputs=SCORES)
    return Interface(signatures={"serving_default": signature})


FLOATS = signatures(image=TensorSpec(dtype="float32", shape=(-1, 28, 28)))
BYTES = signatures(image_bytes=TensorSpec(dtype="string", shape=(-1,)))
MORE = signatures(
    image=TensorSpec(dtype="float32", shape=(-1, 28, 28)),
    seed=TensorSpec(dtype="int64", shape=(), optional=True),
)
FAILED = GoldenStatus(
    task="15-1", result=CheckResult.FAILED, records=3, message="record 2: scores[0] 0.1 and 0.9"
)


def version(number: int, interface: Interface | None = None, **more: Any) -> VersionStatus:
    return VersionStatus(version=number, state=VersionState.AVAILABLE, interface=interface, **more)


def report(*versions: VersionStatus) -> PollerStatus:
    source = SourceStatus(uri="gs://models/imagenet")
    return PollerStatus(revision="1", model="imagenet", source=source, versions=versions)


def lines(found: Comparison) -> list[str]:
    console = Console(width=120, color_system=None)
    with console.capture() as captured:
        console.print(render(found))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_versions_with_another_interface_are_shown_with_what_breaks_clients() -> None:
    reports = {
        "imagenet-1": report(version(14, FLOATS, weight_bytes=102_400_000)),
        "imagenet-2": report(
            version(15, BYTES, weight_bytes=103_000_000, golden=FAILED), version(14, FLOATS)
        ),
    }
    found = compare(model(), reports, 14, 15)
    assert (found.is_known, found.breaks, found.failed) == (True, True, True)
    shown = lines(found)
    assert shown[0] == "imagenet: version 15 breaks clients of version 14"
    assert shown[2] == "BREAKS CLIENTS   CHANGE"
    assert shown[3].startswith("yes              signature")
    at = next(i for i, line in enumerate(shown) if line.startswith("SIGNATURE"))
    assert shown[at:] == [
        "SIGNATURE                             VERSION 14            VERSION 15",
        "serving_default   method              predict               predict",
        "                  input image         float32[-1, 28, 28]   -",
        "                  input image_bytes   -                     string[-1]",
        "                  output scores       float32[-1, 5]        float32[-1, 5]",
        "weights                               102.4 MB              103.0 MB",
        "",
        "GOLDEN REQUESTS OF   ON           RECORDS   RESULT",
        "version 15           imagenet-2   3         Failed   record 2: scores[0] 0.1 and 0.9",
    ]


def test_versions_that_differ_and_break_nobody() -> None:
    reports = {"imagenet-1": report(version(15, MORE), version(14, FLOATS))}
    found = compare(model(), reports, 14, 15)
    assert (found.is_known, found.breaks, found.failed) == (True, False, False)
    shown = lines(found)
    assert "clients of version 14 can go on with version 15" in shown[0]
    assert any("int64[] (optional)" in line for line in shown)
    same = compare(
        model(), {"imagenet-1": report(version(15, FLOATS), version(14, FLOATS))}, 14, 15
    )
    assert lines(same)[0] == "imagenet: versions 14 and 15 have the same interface"
    assert not same.differences


@pytest.mark.parametrize("unread", [None, Interface(message="the graph has 2 GB")])
def test_an_interface_that_is_not_known_says_nothing_about_clients(
    unread: Interface | None,
) -> None:
    told = version(15, unread, weight_bytes=1)
    found = compare(model(), {"imagenet-1": report(told, version(14, FLOATS))}, 14, 15)
    assert (found.is_known, found.breaks) == (False, False)
    assert "is not known" in lines(found)[0]
    assert ("the graph has 2 GB" in "\n".join(lines(found))) is (unread is not None)


def test_what_the_rollout_remembers_counts_where_no_pod_tells_it_any_more() -> None:
    check = {"name": "golden", "result": "Failed", "message": "NaN", "time": "2026-01-01T00:00:00Z"}
    went = model(rollout=rollout("RolledBack", version=15, checks=[check]))
    reports = {"imagenet-1": report(version(15, FLOATS), version(14, FLOATS))}
    found = compare(went, reports, 14, 15)
    assert found.failed
    assert lines(found)[-1].split() == ["version", "15", "rollout", "-", "Failed", "NaN"]
    assert not compare(went, reports, 15, 14).failed


def test_a_version_that_is_on_no_disk_is_told_with_those_that_are() -> None:
    reports = {"imagenet-1": report(version(16), version(14, FLOATS), version(13, FLOATS))}
    with pytest.raises(AnswerError, match="has version 16 on its disk; those are: 14, 13"):
        compare(model(), reports, 14, 16)


def test_one_that_was_taken_back_is_told_with_its_reason_or_what_the_rollout_remembers() -> None:
    failed = [{"version": 16, "fingerprint": "f", "reason": "GoldenMismatch", "message": "NaN"}]
    reports = {"imagenet-1": report(version(14, FLOATS))}
    with pytest.raises(AnswerError, match=r"any more, for it failed \(GoldenMismatch\); those"):
        compare(model(quarantined=failed), reports, 14, 16)
    check = {"name": "golden", "result": "Failed", "message": "NaN", "time": "2026-01-01T00:00:00Z"}
    went = model(quarantined=failed, rollout=rollout("RolledBack", version=16, checks=[check]))
    found = compare(went, reports, 14, 16)
    assert (found.failed, found.is_known) == (True, False)


def test_programs_get_both_sides_and_the_verdicts() -> None:
    reports = {"imagenet-1": report(version(15, BYTES), version(14, FLOATS))}
    told = json.loads(json.dumps(for_programs(compare(model(), reports, 14, 15))))
    assert (told["interfacesKnown"], told["breaksClients"], told["goldenFailed"]) == (
        True,
        True,
        False,
    )
    signature = told["before"]["interface"]["signatures"]["serving_default"]
    assert signature["inputs"]["image"] == {"dtype": "float32", "shape": [-1, 28, 28]}
    assert told["differences"][0]["breaking"] is True


def with_poller(api: ApiServer, status: int, body: bytes) -> None:
    pod = json.dumps({"items": [{"metadata": {"name": "imagenet-1"}}]}).encode()

    def answer(path: str) -> tuple[int, bytes]:
        if "/imagenet-1:8502/proxy/status" in path:
            return status, body
        if "/pods?" in path:
            return 200, pod if "inferencemodel.dev%2Fname%3D" in path else b'{"items": []}'
        return api.models(path)

    api.answer = answer


@pytest.mark.parametrize(("after", "code"), [(BYTES, 4), (MORE, 0)])
def test_the_exit_code_tells_whether_clients_can_go_on(
    api: ApiServer, shell: Any, after: Interface, code: int
) -> None:
    with_poller(api, 200, encode(report(version(15, after), version(14, FLOATS))))
    got, out, err = shell("diff", "imagenet", "14", "15", "-ojson")
    assert (got, err) == (code, "")
    assert json.loads(out)["breaksClients"] is (code == 4)
    assert shell("diff", "imagenet", "14", "15")[0] == code


def test_who_may_not_ask_pollers_is_told_which_right_it_takes(api: ApiServer, shell: Any) -> None:
    with_poller(api, 403, b'{"message": "pods is forbidden"}')
    code, out, err = shell("diff", "imagenet", "14", "15")
    assert (code, out) == (1, "")
    assert "pods is forbidden; it takes get on pods/proxy" in err
