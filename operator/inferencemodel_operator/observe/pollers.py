"""A long poll to the poller of each running pod: what changes there is known here at once."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Final, NamedTuple

import aiohttp

from inferencemodel_operator import bounds, cluster, sockets
from inferencemodel_operator.errors import InvalidReportError, PollerUnavailableError
from inferencemodel_operator.logs import about
from inferencemodel_operator.observe import channels, reports
from inferencemodel_operator.observe.reports import Report, Unreachable
from inferencemodel_operator.pace import Bucket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from inferencemodel_operator.access import Access
    from inferencemodel_operator.metrics import Metrics
    from inferencemodel_operator.observe.channels import Channel
    from inferencemodel_operator.observe.objects import Key, Pod
    from model_poller.status import PollerStatus

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 30
"""How long a poller may hold a request in which it has nothing new to tell."""
ANSWER_SECONDS: Final = 10.0
"""In which a poller answers when it is to answer at once, or when its time to hold is over."""
FIRST_BACKOFF: Final = 0.25
LONGEST_BACKOFF: Final = 15.0
SHORTEST_TURN: Final = 0.05
"""Seconds between two answers of one poller: a bound on what a broken one can cost."""
ANSWER_BURST: Final = 40
ANSWER_REST_SECONDS: Final = 0.5
"""One that never holds a request is asked so often at once, and then once in so many seconds."""
NEWS_BURST: Final = 20
NEWS_SECONDS: Final = 2.0
"""A poller may change what it tells so often at once, and then once in so many seconds. Loading a
version takes about ten changes; one that flips all the time is asked less often."""
BYTES_A_SECOND: Final = 2**20
"""Of one poller's answers, so that long ones cost no more of a processor than short ones."""
LONG_ANSWERS: Final = 8
"""How many answers of more than 64 KiB are read at a time."""
TURN_SECONDS: Final = 5.0
"""Within which each pod is asked once, where there are fewer sockets than pods."""
MOST_TURNS: Final = 300.0
"""A second: each costs a new connection, and so many a sixth of a core. Of more pods than are
asked so within `TURN_SECONDS`, a turn takes longer."""


def session(access: Access, *, reuse: bool = True) -> aiohttp.ClientSession:
    """A session for polls by the API server: a connection for each pod, held by its long poll.

    Args:
        access: of the API server through whose proxy pods are asked.
        reuse: whether a connection is kept for the next poll of its pod.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            # A pool's limit would starve them.
            limit=0,
            ssl=access.ssl_context(),
            socket_factory=sockets.open_watched,
            force_close=not reuse,
        ),
        middlewares=(access,),
        cookie_jar=aiohttp.DummyCookieJar(),
        # What a compressed answer becomes could not be bounded by reading less of it.
        auto_decompress=False,
        read_bufsize=channels.BUFFER,
        headers={"User-Agent": cluster.USER_AGENT, "Accept-Encoding": "identity"},
    )


class Turns:
    """Who is asked when there are more pods than sockets for them: everybody, one after the other.

    News of a pod then come with its turn, `seconds` later at the most, instead of at once.
    """

    def __init__(self, most: int) -> None:
        """Start with nobody.

        Args:
            most: how many pods can be asked at the same time.
        """
        self.most = most
        self.slots = asyncio.Semaphore(most)

    def seconds(self, pods: int) -> float:
        """Within which each of so many is asked once."""
        return max(TURN_SECONDS, pods / MOST_TURNS)

    def hold(self, pods: int) -> float | None:
        """Seconds that each of so many may hold its request for; None where all get a socket."""
        if pods <= self.most:
            return None
        return min(POLL_SECONDS, self.seconds(pods) * self.most / pods)


class _Answer(NamedTuple):
    revision: str
    report: PollerStatus
    size: int
    """Of the body, in bytes."""


class _Course:
    """What has become of asking one pod so far."""

    __slots__ = ("answers", "failures", "heard", "news", "revision")

    def __init__(self) -> None:
        self.revision: str | None = None
        self.heard = False
        self.failures = 0
        """In a row."""
        self.answers = Bucket(burst=ANSWER_BURST, seconds=ANSWER_REST_SECONDS)
        self.news = Bucket(burst=NEWS_BURST, seconds=NEWS_SECONDS)


class Pollers:
    """One task for each pod whose poller runs."""

    def __init__(
        self,
        channel: Callable[[str, asyncio.Semaphore], Channel],
        address: Callable[[Pod], str],
        reports: dict[str, Report],
        changed: Callable[[Key], None],
        metrics: Metrics,
        turns: Turns | None = None,
    ) -> None:
        """Start with no pod.

        Args:
            channel: how a pod is asked, by the URL of its poller.
            address: the URL of a pod's poller, without a path.
            reports: receives what the pollers tell, by pod uid.
            changed: called with the InferenceModel whenever a pod's report changed.
            metrics: counts the polls.
            turns: limits how many are asked at the same time; None for no limit.
        """
        self._channel = channel
        self._address = address
        self._reports = reports
        self._changed = changed
        self._metrics = metrics
        self._tasks: dict[str, tuple[str, asyncio.Task[None]]] = {}
        self._asking = False
        self._turns = turns
        self._crowded = False
        self._long_answers = asyncio.Semaphore(LONG_ANSWERS)
        metrics.long_polls.set_function(lambda: len(self._tasks))

    def start(self, pods: Iterable[Pod]) -> None:
        """Begin to ask these pods, and from now on all that come: a standby asks none."""
        self._asking = True
        for pod in pods:
            self.sync(pod)

    def sync(self, pod: Pod) -> None:
        """Begin, go on or end asking a pod, by what the pod is now."""
        if not self._asking:
            return
        if not askable(pod):
            self.drop(pod.uid)
            return
        address = self._address(pod)
        known = self._tasks.get(pod.uid)
        if known is not None:
            if known[0] == address:
                return
            self.drop(pod.uid)
        task = asyncio.create_task(self._follow(pod, address), name=f"poll {pod.name}")
        task.add_done_callback(lambda ended: self._ended(pod, ended))
        self._tasks[pod.uid] = (address, task)
        self._count()

    def drop(self, uid: str) -> None:
        """Stop asking a pod, and forget what it told."""
        known = self._tasks.pop(uid, None)
        if known is not None:
            known[1].cancel()
            self._count()
        self._reports.pop(uid, None)

    async def close(self) -> None:
        """End all requests."""
        tasks = [task for _, task in self._tasks.values()]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, pod: Pod, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            # What was told last must not pass for the present.
            logger.error("pod %s is asked no more", pod.name, exc_info=error, extra=about(pod.key))
            self._tasks.pop(pod.uid, None)
            self._tell(pod, Unreachable(str(error)))

    async def _follow(self, pod: Pod, address: str) -> None:
        course = _Course()
        channel = self._channel(address, self._long_answers)
        try:
            while True:
                try:
                    answer = await self._ask(channel, course.revision)
                except PollerUnavailableError as error:
                    pause = self._miss(pod, address, error, course)
                else:
                    pause = self._hear(pod, answer, course)
                await asyncio.sleep(pause)
        finally:
            channel.close()

    def _hear(self, pod: Pod, answer: _Answer, course: _Course) -> float:
        """Take in an answer; the seconds until the next request."""
        if course.heard and course.failures:
            logger.info("pod %s can be asked again", pod.name, extra=about(pod.key))
        course.heard, course.failures = True, 0
        outcome = "unchanged" if answer.revision == course.revision else "news"
        self._metrics.polls.labels(outcome).inc()
        course.revision = answer.revision
        now = asyncio.get_running_loop().time()
        course.answers.take(now)
        if self._tell(pod, answer.report):
            course.news.take(now)
        return max(
            SHORTEST_TURN,
            answer.size / BYTES_A_SECOND,
            course.answers.wait(now),
            course.news.wait(now),
        )

    def _miss(
        self, pod: Pod, address: str, error: PollerUnavailableError, course: _Course
    ) -> float:
        """Take in that there is no answer; the seconds until the next request."""
        course.revision = None
        self._metrics.polls.labels("failed").inc()
        now = asyncio.get_running_loop().time()
        if self._tell(pod, Unreachable(f"{address}: {error}")):
            course.news.take(now)
        longest = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(course.failures, 10))
        course.failures += 1
        # A poller that has just been started takes a second to listen.
        if course.failures == (1 if course.heard else 5):
            logger.info(
                "pod %s can't be asked: %s: %s", pod.name, address, error, extra=about(pod.key)
            )
        return max(longest * random.uniform(0.5, 1.0), course.news.wait(now))  # noqa: S311

    def _count(self) -> None:
        """Say when there are more pods than sockets, and when that is over."""
        turns, pods = self._turns, len(self._tasks)
        crowded = turns is not None and turns.hold(pods) is not None
        if turns is not None and crowded and not self._crowded:
            logger.warning(
                "the limit of open files allows to ask %d pods at a time, and more are served: "
                "they are asked in turns, and a change shows up to %.0f s later; raise the hard "
                "limit of open files (ulimit -Hn) of the operator's container",
                turns.most,
                turns.seconds(pods),
            )
        elif self._crowded and not crowded:
            logger.info("every pod can be asked all the time again")
        self._crowded = crowded

    async def _ask(self, channel: Channel, revision: str | None) -> _Answer:
        if self._turns is None:
            return await _poll(channel, revision, POLL_SECONDS)
        async with self._turns.slots:
            hold = self._turns.hold(len(self._tasks))
            if hold is None:
                return await _poll(channel, revision, POLL_SECONDS)
            return await _poll(channel, revision, hold, keep=False)

    def _tell(self, pod: Pod, report: Report) -> bool:
        """Pass on what a pod reports; whether it is news."""
        if _same(self._reports.get(pod.uid), report):
            return False
        self._reports[pod.uid] = report
        self._changed(pod.key)
        return True


async def _poll(
    channel: Channel, revision: str | None, hold: float, *, keep: bool = True
) -> _Answer:
    query, within = {}, ANSWER_SECONDS
    if revision is not None:
        query, within = {"after": revision, "timeout": f"{hold:.3f}"}, ANSWER_SECONDS + hold
    try:
        body = await channel.ask(query, within, keep=keep)
        return _Answer(*reports.decode(body), len(body))
    except InvalidReportError as error:
        raise PollerUnavailableError(str(error)) from None
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        problem = bounds.text(str(error) or type(error).__name__, bounds.NAME)
        raise PollerUnavailableError(problem) from error


def askable(pod: Pod) -> bool:
    """Whether the pod has a poller that can be asked.

    While a pod drains, its poller still takes notifications from the subscription that it shares
    with those that stay. What it learns has to be heard, or a version waits for the next poll.
    """
    return pod.poller_running and pod.ip is not None


def direct(pod: Pod) -> str:
    """The poller's URL by the pod's own address."""
    host = f"[{pod.ip}]" if pod.ip and ":" in pod.ip else pod.ip
    return f"http://{host}:{pod.poller_port}"


def proxied(server: str, pod: Pod) -> str:
    """The poller's URL through the API server, for an operator outside the pod network."""
    path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}:{pod.poller_port}/proxy"
    return f"{server}{path}"


def _same(before: Report | None, now: Report) -> bool:
    if isinstance(before, Unreachable) and isinstance(now, Unreachable):
        return True
    return before == now
