"""Answers that no poller gives: each costs little, and ends in words about the pod."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferencemodel_operator import bounds
from inferencemodel_operator.errors import InvalidReportError
from inferencemodel_operator.metrics import Metrics
from inferencemodel_operator.observe import channels, objects, pollers, reports
from inferencemodel_operator.observe.channels import LARGEST_ANSWER, Direct
from inferencemodel_operator.observe.pollers import Pollers
from inferencemodel_operator.observe.reports import Report, Unreachable
from model_poller import status
from model_poller.status import (
    AssignmentStatus,
    GoldenTask,
    Interface,
    NotificationsStatus,
    PollerStatus,
    RolloutTask,
    ServedVersion,
    SignatureSpec,
    SourceState,
    SourceStatus,
    TensorSpec,
    VersionState,
    VersionStatus,
    encode_task,
)
from tests.support.channels import WAYS, reached

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator
    from pathlib import Path

    from inferencemodel_operator.observe.channels import Channel

    Ask = Callable[[str, asyncio.Semaphore], Channel]

MEGABYTE = b"x" * 10**6


class Pod:
    """A listener that answers each request with the same bytes, as many as are taken."""

    def __init__(self, answer: Iterable[bytes], *, pause: float = 0.0) -> None:
        self.url = ""
        self.sent = 0
        self.requests: list[bytes] = []
        self._serving: list[asyncio.Task[None]] = []
        self.answers: Callable[[], Iterable[bytes]] = lambda: answer
        self._pause = pause

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Pod]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield self
        server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.append(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            for part in self.answers():
                writer.write(part)
                await writer.drain()
                self.sent += len(part)
                await asyncio.sleep(self._pause)
        writer.close()


def ok(body: bytes, *headers: str) -> list[bytes]:
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers, "", ""]
    return ["\r\n".join(lines).encode(), body]


def endless(first: bytes, part: bytes = MEGABYTE) -> Iterator[bytes]:
    yield first
    for _ in range(700):
        yield part


def chunks() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for _ in range(700):
        yield b"f4240\r\n" + MEGABYTE + b"\r\n"


REPORT: dict[str, Any] = {"revision": "1", "model": "m", "source": {"uri": "gs://b/m"}}


def report(**more: Any) -> bytes:
    return json.dumps({**REPORT, **more}).encode()


def versions(number: bytes) -> bytes:
    return report(versions=[{"version": 1, "state": "Fetched"}]).replace(b": 1,", b": %b," % number)


HOSTILE: dict[str, tuple[Callable[[], Iterable[bytes]], str]] = {
    "700 MB with their length": (
        lambda: endless(b"HTTP/1.1 200 OK\r\nContent-Length: 700000000\r\n\r\n"),
        "longer than",
    ),
    "700 MB until the end": (lambda: endless(b"HTTP/1.1 200 OK\r\n\r\n"), "longer than"),
    "700 MB in chunks": (chunks, "longer than"),
    "700 MB of an error": (lambda: endless(b"HTTP/1.1 500 No\r\n\r\n"), "status 500: xxx"),
    "700 MB of one header": (
        lambda: endless(b"HTTP/1.1 200 OK\r\nX: "),
        "Got more than 8190 bytes",
    ),
    "many headers": (
        lambda: endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 10**5),
        "Too many headers",
    ),
    "a length below the body's": (
        lambda: [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", report()],
        "Bad status line",
    ),
    "a length above the body's": (
        lambda: [b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", report()],
        "payload is not completed",
    ),
    "a negative length": (
        lambda: [b"HTTP/1.1 200 OK\r\nContent-Length: -9\r\n\r\n", report()],
        "Content-Length",
    ),
    "gzip": (lambda: ok(gzip.compress(report()), "Content-Encoding: gzip"), "compressed (gzip)"),
    "a gzip bomb": (
        lambda: ok(gzip.compress(b" " * 10**7), "Content-Encoding: gzip"),
        "compressed (gzip)",
    ),
    "an encoding that nobody knows": (
        lambda: ok(report(), "Content-Encoding: x"),
        "compressed (x)",
    ),
    "a redirect": (lambda: [b"HTTP/1.1 302 Found\r\nLocation: /other\r\n\r\n"], "302"),
    "another protocol": (
        lambda: [b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"],
        "status 101",
    ),
    "no HTTP": (lambda: [b"SSH-2.0-OpenSSH_9.6\r\n"], "Bad status line"),
    "nothing": (tuple, "disconnected"),
    "no JSON": (lambda: ok(b"<html>"), "malformed"),
    "another shape": (lambda: ok(b"[]"), "Expected `object`"),
    "no UTF-8": (lambda: ok(report(model="MODEL").replace(b"MODEL", b"\xff\xfe")), "utf-8"),
    "half of a surrogate pair": (lambda: ok(report(model="\ud83d")), "no report"),
    "100,000 brackets": (lambda: ok(b'{"x":' + b"[" * 100000), "nested too deeply"),
    "2^63": (lambda: ok(versions(b"9223372036854775808")), "versions"),
    "a negative version": (lambda: ok(versions(b"-1")), "versions"),
    "5,000 digits": (lambda: ok(versions(b"9" * 5000)), "versions"),
    "a number beyond floats": (lambda: ok(versions(b"1e999")), "versions"),
    "a long revision": (lambda: ok(report(revision="x" * 1000)), "revision is longer"),
}


DIRECTLY = {
    "700 MB of one header": "its head is longer than 16384 bytes",
    "many headers": "its head is longer than 16384 bytes",
    "a length below the body's": "truncated",
    "a length above the body's": "ended before the answer did",
    "no HTTP": "it is no HTTP",
}
"""The words of a pod that is asked itself, where they are others."""


@pytest.fixture(params=WAYS)
async def channel(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ask]:
    async with reached(request.param, tmp_path) as way:
        yield way


async def asked(pod: Pod, channel: Ask) -> Report:
    """What is known of a pod after one attempt to ask it."""
    found: dict[str, Report] = {}
    asking = Pollers(channel, lambda _: pod.url, found, lambda _: None, Metrics())
    asking.start([_running()])
    async with asyncio.timeout(20):
        while "uid-p" not in found:  # noqa: ASYNC110  it has no event of its own
            await asyncio.sleep(0.01)
    await asking.close()
    return found["uid-p"]


def _running() -> objects.Pod:
    pod = objects.pod(
        {
            "metadata": {
                "name": "p",
                "namespace": "vision",
                "uid": "uid-p",
                "resourceVersion": "1",
                "labels": {"inferencemodel.dev/name": "m"},
            },
            "status": {"phase": "Running", "podIP": "127.0.0.1"},
        }
    )
    assert pod is not None
    return pod


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_answer_is_read_no_further_than_needed_and_told_in_words(
    channel: Ask, name: str
) -> None:
    answer, words = HOSTILE[name]
    async with Pod(answer()).listening() as pod:
        found = await asked(pod, channel)
    assert isinstance(found, Unreachable)
    said = DIRECTLY.get(name, words) if channel is Direct else words
    assert said in found.problem
    assert len(found.problem.encode()) <= bounds.MESSAGE
    # What lies in the kernel's buffers counts as sent.
    assert pod.sent < LARGEST_ANSWER + 16 * 10**6


async def test_no_compression_is_asked_for_and_no_credentials_are_sent_to_a_pod(
    channel: Ask,
) -> None:
    async with Pod(ok(report())).listening() as pod:
        assert isinstance(await asked(pod, channel), PollerStatus)
    (request,) = pod.requests
    assert b"Accept-Encoding: identity\r\n" in request
    assert (b"Authorization" in request) == (channel is not Direct)
    assert b"Cookie" not in request


@pytest.mark.parametrize("part", [b"", b" "], ids=["silent", "a byte now and then"])
async def test_a_body_that_does_not_end_is_given_up(
    channel: Ask, monkeypatch: pytest.MonkeyPatch, part: bytes
) -> None:
    monkeypatch.setattr(channels, "BODY_SECONDS", 0.2)
    answer = [b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", *[part] * 1000]
    async with Pod(answer, pause=0.05).listening() as pod:
        found = await asked(pod, channel)
    assert isinstance(found, Unreachable)
    assert "TimeoutError" in found.problem


async def test_long_answers_are_read_in_turns_and_all_of_them(channel: Ask) -> None:
    body = report(versions=[{"version": n, "state": "Fetched"} for n in range(10000)])
    found: dict[str, Report] = {}
    pods = [msgspec.structs.replace(_running(), uid=f"uid-{number}") for number in range(20)]
    async with Pod(ok(body)).listening() as pod:
        asking = Pollers(channel, lambda _: pod.url, found, lambda _: None, Metrics())
        asking.start(pods)
        async with asyncio.timeout(20):
            while len(found) < len(pods):  # noqa: ASYNC110  it has no event of its own
                await asyncio.sleep(0.01)
        await asking.close()
    assert all(isinstance(known, PollerStatus) for known in found.values())


async def test_a_poller_that_changes_its_word_all_the_time_is_asked_less_often(
    channel: Ask,
) -> None:
    told: list[Report] = []

    def answers() -> Iterator[bytes]:
        # Now a report, now none.
        yield from ok(report(model=f"m{len(told)}")) if len(told) % 2 else ok(b"none")

    found: dict[str, Report] = {}
    pod = Pod(())
    async with pod.listening():
        pod.answers = answers
        asking = Pollers(
            channel, lambda _: pod.url, found, lambda _: told.append(found["uid-p"]), Metrics()
        )
        begun = time.monotonic()
        asking.start([_running()])
        async with asyncio.timeout(30):
            while len(told) < pollers.NEWS_BURST:  # noqa: ASYNC110  it has no event of its own
                await asyncio.sleep(0.01)
            await asyncio.sleep(pollers.NEWS_SECONDS / 2)
        await asking.close()
        # A busy machine takes longer for the burst, and what it may ask grows meanwhile.
        more = (time.monotonic() - begun) / pollers.NEWS_SECONDS
        assert len(pod.requests) <= pollers.NEWS_BURST + more + 1


async def test_a_poller_that_never_holds_a_request_is_asked_less_often(
    channel: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pollers, "ANSWER_BURST", 5)
    monkeypatch.setattr(pollers, "ANSWER_REST_SECONDS", 1.0)
    found: dict[str, Report] = {}
    pod = Pod(())
    pod.answers = lambda: ok(report(revision=str(len(pod.requests))))
    async with pod.listening():
        asking = Pollers(channel, lambda _: pod.url, found, lambda _: None, Metrics())
        begun = time.monotonic()
        asking.start([_running()])
        async with asyncio.timeout(30):
            while len(pod.requests) < 7:  # noqa: ASYNC110  it has no event of its own
                await asyncio.sleep(0.01)
            await asyncio.sleep(1)
        await asking.close()
        assert len(pod.requests) <= 5 + (time.monotonic() - begun) / 1.0 + 1


# -- what is kept of an answer


def test_of_30000_versions_the_newest_and_those_on_the_pod_stay() -> None:
    many = tuple(
        VersionStatus(version=number, state=VersionState.DISCOVERED) for number in range(30_000)
    )
    here = VersionStatus(version=7, state=VersionState.AVAILABLE)
    told = PollerStatus(
        revision="1",
        model="m",
        target=9,
        source=SourceStatus(uri="gs://b/m"),
        versions=(here, *many),
        served=(
            *(ServedVersion(version=number, state="END") for number in range(30_000)),
            ServedVersion(version=7, state="AVAILABLE"),
        ),
    )
    _, kept = reports.decode(status.encode(told))
    numbers = [version.version for version in kept.versions]
    assert numbers == [*range(29_999, 29_999 - bounds.VERSIONS + 2, -1), 9, 7]
    assert kept.versions[-1].state is VersionState.AVAILABLE
    assert len(kept.served) == bounds.VERSIONS


def test_the_target_stays_whatever_is_said_to_be_on_the_pod() -> None:
    told = PollerStatus(
        revision="1",
        model="m",
        target=3,
        source=SourceStatus(uri="gs://b/m"),
        versions=tuple(
            VersionStatus(version=number, state=VersionState.RETIRED) for number in range(200)
        ),
    )
    _, kept = reports.decode(status.encode(told))
    assert [version.version for version in kept.versions][-2:] == [137, 3]


def test_what_changes_all_the_time_is_not_kept() -> None:
    version = VersionStatus(
        version=1, state=VersionState.FETCHING, bytes_done=5, bytes_total=9, seconds_left=3
    )
    told = PollerStatus(
        revision="7", model="m", source=SourceStatus(uri="gs://b/m"), versions=(version,)
    )
    revision, kept = reports.decode(status.encode(told))
    assert revision == "7"
    assert kept.revision == ""
    assert kept.versions[0].bytes_done == 0
    assert kept.versions[0].seconds_left is None


def test_what_a_rollout_asks_is_repeated_whole_as_the_annotation_has_it() -> None:
    text = encode_task(RolloutTask(version=5, key="k" * 500, golden=GoldenTask()))
    told = PollerStatus(
        revision="7",
        model="m",
        source=SourceStatus(uri="gs://b/m"),
        assigned=AssignmentStatus(target="4", rollout=text),
    )
    _, kept = reports.decode(status.encode(told))
    assert kept.assigned == told.assigned


def test_an_interface_is_kept_unless_it_is_longer_than_any_poller_tells() -> None:
    def version(number: int, inputs: int) -> VersionStatus:
        named = {f"input {i}": TensorSpec(dtype="float32", shape=(-1, 3)) for i in range(inputs)}
        interface = Interface(signatures={"serving_default": SignatureSpec(inputs=named)})
        return VersionStatus(version=number, state=VersionState.FETCHED, interface=interface)

    told = PollerStatus(
        revision="7",
        model="m",
        source=SourceStatus(uri="gs://b/m"),
        versions=(version(2, 5000), version(1, 500)),
    )
    _, kept = reports.decode(status.encode(told))
    assert kept.versions[1].interface == told.versions[1].interface
    assert kept.versions[0].interface == Interface(message="it has more than 131072 bytes")


WILD = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.builds(
    lambda letter, count: letter * count, st.sampled_from(["x", "模", "\0", "\n"]), st.just(9000)
)
NUMBERS = st.integers(0, 2**63 - 1)
REPORTS = st.builds(
    PollerStatus,
    revision=st.just("r"),
    model=WILD,
    target=st.none() | NUMBERS,
    assigned=st.none() | st.builds(AssignmentStatus, target=WILD, served=WILD, quarantined=WILD),
    source=st.builds(
        SourceStatus,
        uri=WILD,
        state=st.sampled_from(SourceState),
        message=WILD,
        notifications=st.none() | st.builds(NotificationsStatus, message=WILD),
    ),
    versions=st.lists(
        st.builds(
            VersionStatus,
            version=NUMBERS,
            state=st.sampled_from(VersionState),
            fingerprint=WILD,
            disk_fingerprint=WILD,
            message=WILD,
        ),
        max_size=200,
    ).map(tuple),
    served=st.lists(
        st.builds(ServedVersion, version=NUMBERS, state=WILD, error_code=WILD, error_message=WILD),
        max_size=200,
    ).map(tuple),
)


@given(REPORTS)
def test_whatever_a_poller_says_what_is_kept_of_it_is_small_and_can_be_shown(
    told: PollerStatus,
) -> None:
    _, kept = reports.decode(status.encode(told))
    assert len(kept.versions) <= bounds.VERSIONS
    assert len(kept.served) <= bounds.VERSIONS
    assert len({version.version for version in kept.versions}) == len(kept.versions)
    written = status.encode(kept).decode()
    assert all(ord(character) >= 32 for character in written)
    assert "\\u00" not in written
    longest = max(len(text.encode()) for text in _texts(json.loads(written)))
    assert longest <= 8192
    if told.target in {version.version for version in told.versions}:
        assert told.target in {version.version for version in kept.versions}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def test_a_text_of_a_field_that_nobody_has_named_a_limit_for_is_within_one() -> None:
    class Newer(VersionStatus, frozen=True, kw_only=True):
        advice: str = ""
        notifications: tuple[NotificationsStatus, ...] = ()

    told = Newer(
        version=1,
        state=VersionState.AVAILABLE,
        advice="x" * 9000,
        notifications=(NotificationsStatus(message="y" * 9000),),
    )
    kept = reports._clean(told)
    assert len(kept.advice.encode()) == bounds.NAME
    assert len(kept.notifications[0].message.encode()) == bounds.MESSAGE


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_no_bytes_make_more_of_a_mess_than_an_invalid_report(body: bytes) -> None:
    with pytest.raises(InvalidReportError):
        reports.decode(body)
