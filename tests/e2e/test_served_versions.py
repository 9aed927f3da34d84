"""What all replicas serve is decided once, and what failed on one of them stays away from all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.kubectl import Object, condition
from tests.support.savedmodels import archive, unloadable
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.e2e.models import Served

pytestmark = pytest.mark.e2e


def until_each_replica_has(served: Served, versions: list[int], *, replicas: int = 2) -> None:
    eventually(
        lambda: list(served.available_on_each_replica().values()) == [versions] * replicas,
        what=f"versions {versions} on each of {replicas} replicas",
        within=120,
        every=0.5,
    )


def replace_a_pod(served: Served, *, replicas: int = 2, but: Sequence[str] = ()) -> str:
    """Delete a pod; the name of its successor once that is ready and the old one gone."""
    before: set[str] = {pod["metadata"]["name"] for pod in served.pods()}
    victim = min(before - set(but))
    served.kubectl("delete", "pod", victim, "--wait=false")

    def ready() -> bool:
        pods = served.pods()
        return len(pods) == replicas and all(
            condition(pod, "Ready").get("status") == "True" for pod in pods
        )

    eventually(
        lambda: victim not in {p["metadata"]["name"] for p in served.pods()} and ready(),
        what="a new pod in place of the deleted one",
        within=180,
        every=0.5,
    )
    after: set[str] = {pod["metadata"]["name"] for pod in served.pods()}
    (new,) = after - before
    return new


def test_a_later_pod_serves_what_the_others_do_and_never_what_failed(served: Served) -> None:
    served.upload(1, offset=2)
    served.apply(replicas=2)
    served.patch({"model": {"numVersions": 2, "retainVersions": 3}})
    served.until_active(1, replicas=2)
    served.upload(2, offset=3)
    served.until_active(2, replicas=2)
    until_each_replica_has(served, [1, 2])
    served.upload_raw(3, archive(unloadable(served.files(offset=2)), folder="3"))

    def quarantined(obj: Object) -> bool:
        return [q["version"] for q in obj["status"]["model"].get("quarantined", [])] == [3]

    served.until(quarantined, what="version 3 quarantined", within=90)
    until_each_replica_has(served, [1, 2])

    with served.traffic(rate=10, version=2) as traffic:
        with served.operator.stopped():
            names = [replace_a_pod(served)]
            until_each_replica_has(served, [1, 2])
        names.append(replace_a_pod(served, but=names))
        until_each_replica_has(served, [1, 2])

        served.upload(4, offset=2)
        served.until_active(4, replicas=2)
        until_each_replica_has(served, [2, 4])

    assert traffic.sent > 20
    assert traffic.failures == ()
    for name in names:
        states = {v["version"]: v for v in served.poller_status(name)["versions"]}
        assert states[3]["state"] == "Discovered", "it was neither fetched nor tried"
        assert states[3]["reason"] == "QuarantinedElsewhere"
        logged = served.kubectl("logs", name, "--container=poller")
        assert "fetching version 2" in logged
        assert "fetching version 3" not in logged
    assert [q["version"] for q in served.get()["status"]["model"]["quarantined"]] == [3]


def test_a_pod_template_that_can_not_start_is_no_versions_fault(served: Served) -> None:
    served.upload(1, offset=2)
    served.apply(replicas=2)
    served.until_active(1, replicas=2)

    served.patch({"server": {"args": ["--num_load_threads=many"]}})

    def crashes(obj: Object) -> bool:
        return any(
            status["name"] == "model-server" and status["restartCount"] >= 3
            for pod in served.pods()
            for status in pod["status"].get("containerStatuses", [])
        )

    served.until(crashes, what="a pod of the new template that ends again and again", within=180)
    with served.traffic(rate=10) as traffic:
        for version, offset in ((2, 3), (3, 2)):
            served.upload(version, offset=offset)
            eventually(
                lambda version=version: (
                    sorted(served.versions_on_each_replica())  # type: ignore[misc]
                    == [version] * 2
                ),
                what=f"version {version} on the pods that serve",
                within=90,
            )
    assert traffic.failures == ()
    model = served.get()["status"]["model"]
    assert "quarantined" not in model
    assert [entry["version"] for entry in model["history"]] == [3, 2, 1]

    served.patch({"server": {"args": None}})
    served.until_active(3, replicas=2)
