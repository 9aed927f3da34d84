"""A real Prometheus has data for every panel and every alert, and the board is drawn from it.

Two models live for some minutes: versions come, one is bad, clients ask, some of them wrongly.
``PICTURES`` names the folder that gets the pictures which the docs show; without it they go into a
temporary one.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo.load import Exchange, Load, Traffic, rest
from devcluster import build
from tests.e2e.conftest import serving
from tests.support import boards, savedmodels
from tests.support.monitoring import ALERTS, BOARD, RULES, board_queries, grouped, used
from tests.support.prometheus import Prometheus, scrapes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api
    from tests.e2e.models import Served
    from tests.support.kubectl import Kubectl

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

INTERVAL = 5
"""Seconds between two scrapes; the monitors' own would make few points of some minutes."""
RATE = "30s"
"""What rates are taken over: some scrapes, as Grafana chooses."""
PAUSE = 40.0
"""Seconds of quiet between two events: what is drawn is time."""


@dataclass(frozen=True)
class Watched:
    """What Prometheus saw, and when, in seconds since 1970."""

    prometheus: Prometheus
    begin: float
    end: float


@pytest.fixture(scope="module")
def watched(
    request: pytest.FixtureRequest,
    cluster: Api,
    installed: Kubectl,
    exports: dict[int, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Watched]:
    """Two models that have lived for some minutes."""
    if cluster.audit_log is None:
        pytest.skip("pods of another cluster can't be reached from here")
    program = build.ensure(["prometheus"])["prometheus"]
    folder = tmp_path_factory.mktemp("prometheus")
    found = scrapes(cluster.kubeconfig, interval=INTERVAL)
    rules = {"groups": ALERTS["groups"]}
    with (
        Prometheus(program, folder, found, rules) as prometheus,
        serving(request, cluster, installed, exports) as imagenet,
        serving(request, cluster, installed, exports) as flowers,
    ):
        imagenet.name, flowers.name = "imagenet", "flowers"
        begin = time.time()
        live(imagenet, flowers)
        yield Watched(prometheus, begin, time.time())


def live(imagenet: Served, flowers: Served) -> None:
    """Versions come, one of them bad, while clients ask, some of them wrongly."""
    for served, replicas in ((imagenet, 3), (flowers, 1)):
        served.upload(1, offset=2)
        served.apply(replicas=replicas, pollInterval="5s")
    for served, replicas in ((imagenet, 3), (flowers, 1)):
        served.until_active(1, replicas=replicas)
    loads = [*imagenet.loads(rate=12, grpc_rate=4), *flowers.loads(rate=5)]
    with Traffic(*loads, wrong(imagenet)):
        time.sleep(PAUSE)
        imagenet.upload(2, offset=3)
        imagenet.until_active(2, replicas=3)
        time.sleep(PAUSE)
        bad = savedmodels.unloadable(flowers.files(offset=3))
        flowers.upload_raw(2, savedmodels.archive(bad, folder="0002"))
        flowers.until(
            lambda obj: [q["version"] for q in obj["status"]["model"]["quarantined"]] == [2],
            what="version 2 quarantined",
        )
        time.sleep(PAUSE)
        flowers.upload(3, offset=3)
        flowers.until_active(3, replicas=1)
        time.sleep(PAUSE)


def wrong(served: Served) -> Load:
    """Requests that no model can answer."""
    exchange = Exchange(b'{"instances": ["no number"]}', lambda answer: str(answer))
    model = f"http://{served.ingress}/v1/models/{served.name}"
    return Load("wrong requests", rest(f"{model}:predict", [exchange], host=served.host), 1)


@pytest.mark.parametrize("query", board_queries())
def test_a_panel_has_data(watched: Watched, query: str) -> None:
    asked = boards.filled(query, RATE)
    assert watched.prometheus.over_time(asked, watched.begin, watched.end, step=INTERVAL)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_asks_for_series_that_there_are(watched: Watched, rule: dict[str, str]) -> None:
    known: set[str] = set()
    for metric, labels in used(rule["expr"]).items():
        series = watched.prometheus.labels(metric, watched.begin, watched.end)
        assert series, metric
        for label in labels:
            assert any(label in found for found in series), f"{metric}{{{label}}}"
        known.update(*series)
    assert grouped(rule["expr"]) <= known


def test_prometheus_evaluates_every_alert(watched: Watched) -> None:
    groups = watched.prometheus.ask("rules")["groups"]
    rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert set(rules) == {rule["alert"] for rule in RULES}
    assert {rule["name"]: rule.get("lastError") for rule in rules.values()} == dict.fromkeys(rules)
    # A version was bad, and that is all that was wrong.
    firing = {name for name, rule in rules.items() if rule["state"] == "firing"}
    assert firing <= {"InferenceModelVersionQuarantined", "InferenceModelVersionTakenBack"}


@pytest.mark.parametrize("theme", boards.THEMES)
def test_the_board_is_drawn(watched: Watched, tmp_path: Path, theme: str) -> None:
    folder = Path(os.environ.get("PICTURES", tmp_path))
    panels = boards.read(
        BOARD, watched.prometheus, watched.begin, watched.end, rate=RATE, step=INTERVAL
    )
    picture = folder / f"board-{theme}.png"
    boards.draw(panels, boards.THEMES[theme], picture)
    assert picture.stat().st_size > 50_000
