"""A new version reaches every replica, and nobody who sends requests notices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.kubectl import condition
from tests.support.savedmodels import archive
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.e2e.models import Served

pytestmark = pytest.mark.e2e


def test_every_replica_on_one_subscription_gets_the_new_version_without_a_failed_request(
    served: Served,
) -> None:
    served.upload(1, offset=2)
    served.apply(replicas=3, pollInterval="10m")
    served.until_active(1, replicas=3)

    with served.traffic(rate=20) as traffic:
        served.upload(2, offset=3)
        served.until_active(2, replicas=3)
        eventually(lambda: served.predict(1.0) == 3.5, what="the answer of version 2")

    assert traffic.sent > 20
    assert traffic.failures == ()
    assert served.versions_on_each_replica() == [2, 2, 2]


def test_a_version_whose_notification_is_lost_arrives_with_the_next_poll(served: Served) -> None:
    served.upload(1, offset=2)
    served.apply(replicas=1, pollInterval="5s", subscription=None)
    served.until_active(1, replicas=1)

    served.upload(2, offset=3)

    served.until_active(2, replicas=1)


def test_a_restart_of_the_operator_in_the_middle_of_a_version_change_loses_nothing(
    served: Served,
) -> None:
    served.upload(1, offset=2)
    served.apply(replicas=3)
    served.until_active(1, replicas=3)

    with served.traffic(rate=10) as traffic:
        served.upload(2, offset=3)
        served.operator.restart()
        served.until_active(2, replicas=3)

    assert traffic.failures == ()


def test_serving_and_new_pods_do_without_the_operator(served: Served) -> None:
    served.upload(1, offset=2)
    served.apply(replicas=1)
    served.until_active(1, replicas=1)

    with served.operator.stopped():
        served.kubectl("delete", "pod", "--selector", served.selector, "--wait=false")
        eventually(
            lambda: served.versions_on_each_replica() == [1],
            what="a new pod that serves version 1 with the operator down",
            within=120,
        )


def test_a_pinned_version_is_rolled_back_to_and_reported(served: Served) -> None:
    served.upload(1, offset=2)
    served.upload(2, offset=3)
    served.apply(replicas=1)
    served.until_active(2, replicas=1)

    served.patch({"model": {"version": 1}})

    served.until_active(1, replicas=1)
    assert served.predict(1.0) == 2.5
    status = served.get()["status"]["model"]
    assert (status["targetVersion"], status["latestVersion"]) == (1, 2)


def test_another_source_takes_over_with_its_own_versions(served: Served) -> None:
    served.upload(5, offset=2)
    served.apply(replicas=2)
    served.until_active(5, replicas=2)
    elsewhere = f"{served.prefix}-retrained"
    served.bucket.upload(f"{elsewhere}/1.zip", archive(served.files(offset=3), folder="1"))

    with served.traffic(rate=10) as traffic:
        served.patch({"model": {"storageUri": f"gs://models/{elsewhere}"}})
        served.until_active(1, replicas=2)
        served.until_pods(2)

    assert served.predict(1.0) == 3.5
    assert traffic.failures == ()


def test_scaling_out_and_in_under_traffic_fails_no_request(served: Served) -> None:
    served.upload(1, offset=2)
    served.apply(replicas=1)
    served.until_active(1, replicas=1)

    with served.traffic(rate=20) as traffic:
        served.kubectl("scale", f"inferencemodel/{served.name}", "--replicas=3")
        served.until_active(1, replicas=3)
        served.kubectl("scale", f"inferencemodel/{served.name}", "--replicas=1")
        served.until_active(1, replicas=1)
        served.until_pods(1)

    assert traffic.failures == ()


def test_the_versions_column_tells_the_served_version(served: Served) -> None:
    served.upload(7, offset=2)
    served.apply(replicas=1)
    served.until_active(7, replicas=1)

    header, row = served.kubectl("get", "inferencemodels", served.name).splitlines()

    assert header.split() == [
        *("NAME", "VERSION", "TARGET", "READY", "REPLICAS", "STATUS", "ROLLOUT", "URL", "AGE")
    ]
    assert row.split()[:6] == [served.name, "7", "7", "True", "1/1", "UpToDate"]
    assert row.split()[-2] == served.get()["status"]["url"]
    assert condition(served.get(), "Ready")["reason"]
