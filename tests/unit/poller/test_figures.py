"""What a model server counts, read from its page."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from development_model_server.metrics import Metrics
from model_poller.model_server import figures
from model_poller.model_server.figures import (
    Figures,
    FiguresWatch,
    UnreadableFiguresError,
    fetch,
    parse,
)
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# As TensorFlow Serving writes it: escapes, six digits, models that somebody only asked for.
PAGE = r"""
# TYPE :tensorflow:core:graph_runs counter
:tensorflow:core:graph_runs{} 12
# TYPE :tensorflow:serving:request_count counter
:tensorflow:serving:request_count{model_name="m",status="OK"} 905
:tensorflow:serving:request_count{model_name="m",status="INVALID_ARGUMENT"} 3
:tensorflow:serving:request_count{model_name="m",status="RESOURCE_EXHAUSTED"} 2
:tensorflow:serving:request_count{model_name="other",status="NOT_FOUND"} 77
:tensorflow:serving:request_count{model_name="m\",status=\"OK",status="NOT_FOUND"} 55
# TYPE @ histogram
@_bucket{model_name="m",API="",entrypoint="REST",le="10"} 900
@_bucket{model_name="m",API="",entrypoint="REST",le="+Inf"} 900
@_sum{model_name="m",API="",entrypoint="REST"} 9000
@_count{model_name="m",API="",entrypoint="REST"} 900
@_bucket{model_name="m",API="Predict",entrypoint="GRPC",le="10"} 0
@_bucket{model_name="m",API="Predict",entrypoint="GRPC",le="18"} 3
@_bucket{model_name="m",API="Predict",entrypoint="GRPC",le="+Inf"} 3
@_sum{model_name="m",API="Predict",entrypoint="GRPC"} 45
@_count{model_name="m",API="Predict",entrypoint="GRPC"} 3
@_bucket{model_name="m",API="predict",entrypoint="REST",le="10"} 1
@_bucket{model_name="m",API="predict",entrypoint="REST",le="18"} 1
@_bucket{model_name="m",API="predict",entrypoint="REST",le="+Inf"} 2
@_sum{model_name="m",API="predict",entrypoint="REST"} 1.23457e+07
@_count{model_name="m",API="predict",entrypoint="REST"} 2
""".replace("@", ":tensorflow:serving:request_latency")


def test_predictions_are_counted_and_no_get_of_a_probe() -> None:
    read = parse(PAGE, "m")
    assert (read.good, read.bad) == (5, 5)
    assert read.micros == 45 + 1.23457e7
    assert read.slack == 50
    assert read.buckets == ((10.0, 1), (18.0, 4), (float("inf"), 5))
    assert parse(PAGE, "nobody") == Figures()
    assert parse(PAGE, 'm",status="OK').bad == 55


@pytest.mark.parametrize(
    ("page", "why"),
    [
        ("", "no :tensorflow:serving:request_count and no :tensorflow:serving:request_latency"),
        (PAGE.replace("# TYPE :tensorflow:serving:request_latency", "#"), "request_latency"),
        (PAGE.replace('status="OK"} 905', 'status="BAD"} many'), "many"),
        (PAGE.replace('le="18"', 'less="18"'), "le"),
        ("<html>not found</html>", "no :tensorflow"),
    ],
)
def test_a_page_without_them_is_told(page: str, why: str) -> None:
    with pytest.raises(UnreadableFiguresError, match=why):
        parse(page, "m")


def test_the_development_model_servers_page_is_read() -> None:
    metrics = Metrics("0")
    for _ in range(4):
        metrics.request_latency.add(1500, "m", "Predict", "GRPC")
        metrics.request_latency.add(90, "m", "", "REST")
        metrics.request_count.add("m", "OK", amount=2)
    metrics.request_count.add("m", "INTERNAL")
    read = parse(metrics.page(), "m")
    assert (read.good, read.bad, read.micros) == (4, 1, 6000)


class TestTheTimeBetweenTwoLooks:
    def test_is_the_difference_of_the_sums(self) -> None:
        assert Figures(1, 0, 1e6).seconds_until(Figures(3, 0, 1.5e6)) == 0.5

    def test_is_taken_of_the_histogram_where_the_sums_are_too_coarse(self) -> None:
        # Ten requests of 12 ms after a hundred million others.
        def after(count: int) -> Figures:
            metrics = Metrics("0")
            sampler = metrics.request_latency
            sampler.add(1e12, "m", "Predict", "GRPC")
            for _ in range(count):
                sampler.add(12_000, "m", "Predict", "GRPC")
            return parse(metrics.page(), "m")

        before, later = after(0), after(10)
        assert later.micros - before.micros == 0
        # By the limits of a bucket, each 1.8 times the one before.
        assert 0.12 / 1.8 < before.seconds_until(later) < 0.12 * 1.8

    def test_is_something_for_what_took_longer_than_any_limit(self) -> None:
        buckets = ((10.0, 0), (float("inf"), 0))
        before, later = Figures(0, 0, 1e9, 5e8, buckets), ((10.0, 0), (float("inf"), 2))
        assert before.seconds_until(Figures(2, 0, 1e9, 5e8, later)) > 2 * 10 / 1e6


@pytest.mark.parametrize(
    ("later", "same_life"),
    [
        (Figures(5, 1, 10.0, 0.0, ((10.0, 3),)), True),
        (Figures(6, 1, 10.0, 0.0, ((10.0, 4),)), True),
        (Figures(4, 1, 10.0, 0.0, ((10.0, 3),)), False),
        (Figures(5, 0, 10.0, 0.0, ((10.0, 3),)), False),
        (Figures(5, 1, 10.0, 0.0, ((10.0, 2), (20.0, 5))), False),
    ],
)
def test_a_counter_that_falls_is_another_life_of_the_server(
    later: Figures, same_life: bool
) -> None:
    assert Figures(5, 1, 10.0, 0.0, ((10.0, 3),)).is_before(later) is same_life


@contextmanager
def answering(respond: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            respond(self)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def send(handler: http.server.BaseHTTPRequestHandler, body: bytes, *, told: int = -1) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body) if told < 0 else told))
    handler.end_headers()
    handler.wfile.write(body)


def test_the_page_is_fetched_at_the_path_that_the_server_has_by_default() -> None:
    asked: list[str] = []

    def respond(handler: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        send(handler, PAGE.encode())

    with answering(respond) as address:
        assert fetch(address) == PAGE
    assert asked == ["/monitoring/prometheus/metrics"]


def test_what_comes_too_slowly_is_cut() -> None:
    def trickle(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        with suppress(OSError):
            for _ in range(500):
                handler.wfile.write(b"#")
                time.sleep(0.02)

    begin = time.monotonic()
    with answering(trickle) as address, pytest.raises(UnreadableFiguresError, match="in part"):
        fetch(address, 0.3)
    assert time.monotonic() - begin < 5


def test_what_is_cut_refused_or_too_large_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MAX_BYTES", 100)
    for respond, why in (
        (lambda handler: send(handler, b"#", told=9), "in part|8 more expected"),
        (lambda handler: handler.send_error(404), "404 Not Found"),
        (lambda handler: send(handler, b"#" * 200), "more than"),
    ):
        with answering(respond) as address, pytest.raises(UnreadableFiguresError, match=why):
            fetch(address)
    with closing(socket.create_server(("127.0.0.1", 0))) as deaf:
        port = deaf.getsockname()[1]
        with pytest.raises(UnreadableFiguresError, match=r"within 0\.2 s|timed out"):
            fetch(f"127.0.0.1:{port}", 0.2)
    with pytest.raises(UnreadableFiguresError, match="refused"):
        fetch(f"127.0.0.1:{port}")


def test_nothing_is_asked_unless_somebody_wants_it(caplog: pytest.LogCaptureFixture) -> None:
    pages = [PAGE]
    asked: list[float] = []

    def page() -> str:
        asked.append(time.monotonic())
        return pages[0]

    reports: list[tuple[float, Figures]] = []
    watch = FiguresWatch(page, "m", lambda begun, read: reports.append((begun, read)))
    watch.start()
    time.sleep(0.2)
    assert asked == []
    watch.want("a rollout", 0.05)
    eventually(lambda: len(reports) > 2, what="figures", within=5, every=0.01)
    begun, read = reports[0]
    assert begun <= asked[0]
    assert read == parse(PAGE, "m")
    pages[0] = "nothing"
    count = len(asked)
    eventually(lambda: len(asked) > count + 3, what="tries", within=5, every=0.01)
    told = [r.message for r in caplog.records if "metrics can't be read" in r.message]
    assert len(told) == 1
    pages[0] = PAGE
    count = len(reports)
    watch.want("another one", 60.0)
    eventually(lambda: len(reports) > count, what="figures at once", within=5, every=0.01)
    watch.want(None, 0.05)
    eventually(lambda: watch._reason is None, what="rest", within=5)
    time.sleep(0.1)
    count = len(asked)
    time.sleep(0.2)
    assert len(asked) == count
    watch.stop()
