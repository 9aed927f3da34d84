"""The console with many models: first paint, how soon a change shows, what it takes at rest.

A real API server without a node, a real Chromium that is open already, as a user's is. Statuses are
written by hand, as nothing serves there. Beside each figure stands what can't be gone below: the
list by kubectl, and a bare watch that sees the same change.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, Final

from urllib3.exceptions import HTTPError

from bench import measured, record
from demo.console import say, table
from demo.errors import OutcomeError
from devcluster import ApiServer
from kubectl_inferencemodel import kubeconfig
from tests.support import crd, shown
from tests.support.browser import chromium, console
from tests.support.kubectl import Kubectl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page
    from urllib3 import BaseHTTPResponse

    from devcluster import Api

_PAINT_SECONDS: Final = 1.0
_LAG_SECONDS: Final = 0.3
_REST_PERCENT: Final = 5.0
"""The figures to reach."""
_API: Final = "/apis/inferencemodel.dev/v1alpha1"
_LATER: Final = 20.0
"""Seconds; what is not shown by then is never."""
_NOTE: Final = """
addEventListener("DOMContentLoaded", () => requestAnimationFrame(() => requestAnimationFrame(() => {
  window.painted = performance.timeOrigin + performance.now();
  window.shown = {};
  const body = document.querySelector("#fleet tbody");
  if (!body) return;
  window.rows = body.rows.length;
  new MutationObserver((changes) => requestAnimationFrame(() => {
    const now = performance.timeOrigin + performance.now();
    for (const change of changes) for (const row of change.addedNodes)
      if (row.id) window.shown[row.id + " " + row.querySelector(".c-version").textContent] = now;
  })).observe(body, { childList: true });
})));
"""
"""What is noted in the page: when its rows are painted, and when each changed row is."""


class Writer:
    """Writes statuses, and watches for them as somebody would who has nothing else to do."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._access = kubeconfig.find(api.kubeconfig, None)
        self._at = f"{self._access.server}{_API}/namespaces/{namespace}/inferencemodels"
        self.seen: dict[tuple[str, int], float] = {}

    def change(self, name: str, version: int) -> float:
        """Have a model on another version; the time at which that was sent (Unix, seconds)."""
        of = {"activeVersion": version, "targetVersion": version}
        sent = time.time()
        answer = self._access.pool.request(
            *("PATCH", f"{self._at}/{name}/status"),
            body=json.dumps({"status": {"model": of}}).encode(),
            headers={"Content-Type": "application/merge-patch+json"},
        )
        if answer.status != 200:
            raise OutcomeError(f"a status can't be written: {answer.data[:300]!r}")
        return sent

    def watch(self) -> None:
        """Note when each change arrives, until the process ends."""
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        answer = self._access.pool.request("GET", f"{self._at}?watch=1", preload_content=False)
        # At the end the API server is gone.
        with suppress(HTTPError):
            self._note(answer)

    def _note(self, answer: BaseHTTPResponse) -> None:
        rest = b""
        while chunk := answer.read1(1 << 16):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                found = json.loads(line)["object"]
                version = found.get("status", {}).get("model", {}).get("activeVersion", 0)
                self.seen.setdefault((found["metadata"]["name"], version), time.time())


def run(models: int, rounds: int, changes: int, rest: float) -> None:
    """Measure, and keep the figures.

    Raises:
        OutcomeError: one was not reached.
    """
    with ApiServer() as api, crd.installed(api) as namespace, chromium() as browser:
        say(f"creating {models} InferenceModels")
        kubectl = Kubectl(api.program, api.kubeconfig)
        fleet = [shown.Shown(namespace, f"model-{n:04}", version=1) for n in range(models)]
        for begin in range(0, models, 250):
            shown.put(kubectl, *fleet[begin : begin + 250])
        listing = [_listed(kubectl, namespace) for _ in range(rounds)]
        page = browser.new_page()
        page.add_init_script(_NOTE)
        paints = [_painted(page, api, namespace, models) for _ in range(rounds)]
        with _opened(page, api, namespace) as process:
            lags, bare = _lags(page, Writer(api, namespace), fleet, changes)
            say(f"looking at it at rest for {rest:.0f} s")
            before = measured.cpu_seconds(process)
            time.sleep(rest)
            percent = 100 * (measured.cpu_seconds(process) - before) / rest
            memory = _memory_mb(process)
    figures = {
        "models": models,
        "first_paint_seconds": paints,
        "kubectl_get_seconds": listing,
        "lag_p95_seconds": _p95(lags),
        "lag_median_seconds": median(lags),
        "bare_watch_p95_seconds": _p95(bare),
        "changes": len(lags),
        "rest_percent_of_a_core": percent,
        "memory_mb": memory,
        "load": os.getloadavg()[0],
    }
    table(
        [
            ("", "measured", "beside it"),
            ("first paint", record.summary(paints), f"kubectl get: {record.summary(listing)}"),
            ("a change, p95", f"{_p95(lags):.3f} s", f"a bare watch: {_p95(bare):.3f} s"),
            ("at rest", f"{percent:.1f} % of a core", f"{memory:.0f} MB"),
        ]
    )
    say(f"kept in {record.write('console', figures)}")
    missed = [
        words
        for words, is_reached in (
            (f"first paint within {_PAINT_SECONDS} s", median(paints) <= _PAINT_SECONDS),
            (f"a change within {_LAG_SECONDS} s", _p95(lags) <= _LAG_SECONDS),
            (f"{_REST_PERCENT} % of a core at rest", percent <= _REST_PERCENT),
        )
        if not is_reached
    ]
    if missed:
        raise OutcomeError(f"not reached: {', '.join(missed)}")


def _listed(kubectl: Kubectl, namespace: str) -> float:
    begun = time.monotonic()
    kubectl("get", "inferencemodels", "-n", namespace)
    return time.monotonic() - begun


def _painted(page: Page, api: Api, namespace: str, models: int) -> float:
    """Seconds from the start of the command until its rows are on the screen."""
    begun = time.time()
    with console(api.kubeconfig, f"--namespace={namespace}") as link:
        page.goto(link, wait_until="commit")
        # The console's own rules forbid the driver to wait by a script in the page.
        painted = _until(page, "window.painted")
        rows = page.evaluate("window.rows")
    if rows != models:
        raise OutcomeError(f"{rows} of {models} models are shown")
    return painted / 1000 - begun


@contextmanager
def _opened(page: Page, api: Api, namespace: str) -> Iterator[int]:
    """A console with its page open; its process' id."""
    with console(api.kubeconfig, f"--namespace={namespace}") as link:
        page.goto(link)
        page.wait_for_selector("#live.on")
        yield _child(link)


def _child(link: str) -> int:
    """Which process listens where a link leads to."""
    port = link.split(":")[2].partition("/")[0]
    done = subprocess.run(
        ["ss", "-H", "-ltnp", f"sport = :{port}"], capture_output=True, text=True, check=True
    )
    return int(done.stdout.partition("pid=")[2].partition(",")[0])


def _lags(
    page: Page, writer: Writer, fleet: list[shown.Shown], changes: int
) -> tuple[list[float], list[float]]:
    """Seconds until each change is on the screen, and until a bare watch has seen it."""
    say(f"changing {changes} models, one after the other")
    writer.watch()
    time.sleep(1)
    lags, bare = [], []
    for number in range(changes):
        name, version = fleet[(number * 37) % len(fleet)].name, 100 + number
        sent = writer.change(name, version)
        row = f"r-{fleet[0].namespace}/{name} {version}"
        told = _until(page, f"window.shown[{json.dumps(row)}]")
        lags.append(told / 1000 - sent)
        bare.append(writer.seen[name, version] - sent)
        time.sleep(0.05)
    return lags, bare


def _until(page: Page, value: str) -> float:
    """A number of the page, once it is there."""
    deadline = time.monotonic() + _LATER
    while time.monotonic() < deadline:
        found: Any = page.evaluate(f"() => {value}")
        if found:
            return float(found)
        time.sleep(0.01)
    raise OutcomeError(f"{value} is never there")


def _p95(values: list[float]) -> float:
    return quantiles(values, n=20)[-1]


def _memory_mb(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1000
