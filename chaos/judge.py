"""What of a run was as it must be, and what was not: pure functions over what was seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.trend import trend
from chaos.seen import INGRESS, Way

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chaos.seen import Failure, Happened, Inventory, Look, Pod, Standstill, Told, Usage

HEARD = 12.0
"""Seconds until everybody has heard that a pod is not ready, the requests under way included: they
give up after ten."""
RESTING = 90.0
"""Seconds for which a pod that was hit may stay away without the kubelet being late: a container
that ended several times is started again after ten, twenty, forty and eighty."""
KNOWN = 60.0
"""Seconds that a status may lag behind, of those in which somebody could write it."""
RESUMED = 30.0
"""Seconds that an operator gets after a time in which it could not work."""


@dataclass(frozen=True)
class Finding:
    """Something that must not be."""

    at: float
    what: str


def unexplained(
    failures: Sequence[Failure],
    faults: Sequence[Happened],
    looks: Sequence[Look],
    standstills: Sequence[Standstill] = (),
) -> list[Finding]:
    """The failed requests that no fault explains."""
    absent = _Absences(looks, faults)
    return [
        Finding(failure.at, f"{failure.model} by {failure.way}: {failure.reason}")
        for failure in failures
        if not any(_stands(failure, still) for still in standstills)
        and not any(_takes(fault, failure, absent) for fault in faults)
        and not absent.explained(failure)
    ]


def _stands(failure: Failure, still: Standstill) -> bool:
    return still.at - failure.waited - 1 <= failure.at <= still.at + still.seconds + 1


def _takes(fault: Happened, failure: Failure, absent: _Absences) -> bool:
    """Whether a request fails because of a fault, while it is there and until all know it."""
    replied = failure.at + failure.waited
    if replied < fault.began or failure.at > fault.until(failure.at) + HEARD:
        # A pod that was hit may be away for longer than the fault is there.
        hit = fault.taken.pods or fault.taken.nodes
        if replied < fault.began or not hit:
            return False
    elif failure.way in fault.taken.ways or failure.model in fault.taken.models:
        return True
    asked = {failure.model, INGRESS} if failure.way is Way.REST else {failure.model}
    return any(
        began <= replied and failure.at <= ended for began, ended in absent.hit(fault, asked)
    )


class _Absences:
    """When pods could not answer because a fault had hit them."""

    def __init__(self, looks: Sequence[Look], faults: Sequence[Happened]) -> None:
        self._looks = [look for look in looks if look.answered]
        self._deaf = sorted(
            (fault for fault in faults if fault.taken.hearing), key=lambda fault: fault.began
        )
        self._hits: dict[int, dict[str, list[tuple[float, float]]]] = {}
        models = {pod.model for look in self._looks for pod in look.pods}
        self._outages = {
            model: [
                (began, ended)
                for began, ended in self._without(model)
                if any(self._began_by(fault, model, began) for fault in faults)
            ]
            for model in models
        }
        """Those that faults have brought about."""

    def hit(self, fault: Happened, models: Iterable[str]) -> list[tuple[float, float]]:
        """From when until when requests to pods of these that a fault hit may fail."""
        if id(fault) not in self._hits:
            self._hits[id(fault)] = self._victims(fault)
        victims = self._hits[id(fault)]
        return [span for model in models for span in victims.get(model, [])]

    def _victims(self, fault: Happened) -> dict[str, list[tuple[float, float]]]:
        victims: dict[str, str] = {}
        for look in self._looks:
            if look.at > fault.until(look.at) + HEARD:
                break
            victims.update({pod.name: pod.model for pod in look.pods if _is_hit(fault, pod)})
        found: dict[str, list[tuple[float, float]]] = {}
        for name, model in victims.items():
            found.setdefault(model, []).append((fault.began, self._known(name, fault)))
        return found

    def _known(self, name: str, fault: Happened) -> float:
        """When all knew that a pod is not ready; of one that always was, when the fault is over."""
        over = fault.until(float("inf"))
        for look in self._looks:
            if look.at <= fault.began:
                continue
            pod = next((pod for pod in look.pods if pod.name == name), None)
            if pod is None or not pod.ready:
                return self._heard(min(look.at, over + RESTING))
            if look.at > over + HEARD:
                break
        return self._heard(over)

    def _heard(self, at: float) -> float:
        """When everybody has heard of what was so at a moment."""
        heard = at + HEARD
        for fault in self._deaf:
            over = fault.until(float("inf"))
            if fault.began <= heard and at <= over:
                heard = max(heard, over + HEARD)
        return heard

    def explained(self, failure: Failure) -> bool:
        """Whether nobody was there, because faults had taken all of them."""
        asked = [failure.model, INGRESS] if failure.way is Way.REST else [failure.model]
        return any(
            began - HEARD <= failure.at + failure.waited and failure.at <= self._heard(ended)
            for model in asked
            for began, ended in self._outages.get(model, [])
        )

    def _began_by(self, fault: Happened, model: str, began: float) -> bool:
        if not fault.began - 1 <= began <= fault.until(began) + RESTING:
            return False
        return model in fault.taken.models or any(
            pod.model == model and _is_hit(fault, pod)
            for look in self._looks
            if fault.began - RESTING <= look.at <= began
            for pod in look.pods
        )

    def _without(self, model: str) -> Iterable[tuple[float, float]]:
        """The spans in which no pod of a model was ready."""
        began: float | None = None
        served = False
        for look in self._looks:
            ready = any(pod.ready for pod in look.pods if pod.model == model)
            if served and not ready and began is None:
                began = look.at
            if ready and began is not None:
                yield began, look.at
                began = None
            served = served or ready
        if began is not None:
            yield began, float("inf")


def _is_hit(fault: Happened, pod: Pod) -> bool:
    return pod.name in fault.taken.pods or pod.node in fault.taken.nodes


def contradictions(told: Told, pods: Sequence[Pod]) -> dict[str, str]:
    """What a status says and the pods don't, by what it is about."""
    here = [pod for pod in pods if pod.model == told.model]
    counted = [pod for pod in here if pod.ready and not pod.leaving]
    asked = [pod for pod in counted if pod.available is not None]
    answers = {pod.answers for pod in asked}
    found = {}
    if told.ready_replicas != len(counted):
        found["replicas"] = f"{told.ready_replicas} replicas are ready; there are {len(counted)}"
    if told.active is not None and asked and told.active not in answers:
        found["active"] = f"version {told.active} is active; pods answer with {_shown(answers)}"
    if told.transition == "UpToDate" and asked and answers != {told.active}:
        found["transition"] = (
            f"version {told.active} is up to date; pods answer with {_shown(answers)}"
        )
    if told.ready == "True" and told.wanted and not counted:
        found["ready"] = "it is Ready; no pod is"
    if told.ready != "True" and told.wanted and len(asked) == told.wanted and None not in answers:
        found["ready"] = f"it is not Ready ({told.reason}); all {told.wanted} pods answer"
    return found


def _shown(answers: Iterable[int | None]) -> str:
    return ", ".join(str(answer) for answer in sorted(answers, key=lambda each: each or 0))


def untrue(looks: Sequence[Look], faults: Sequence[Happened]) -> list[Finding]:
    """What a status said wrongly for longer than it takes to know better."""
    found: list[Finding] = []
    since: dict[tuple[str, str], float] = {}
    reported: set[tuple[str, str]] = set()
    able: float | None = None
    for look in looks:
        if not _can_report(look, faults):
            able = None
            continue
        able = look.at if able is None else able
        for told in look.told:
            wrong = contradictions(told, look.pods)
            for about in ("replicas", "active", "transition", "ready"):
                key = (told.model, about)
                if about not in wrong:
                    since.pop(key, None)
                    reported.discard(key)
                    continue
                begun = max(since.setdefault(key, look.at), able + RESUMED)
                if look.at - begun > KNOWN and key not in reported:
                    reported.add(key)
                    seconds = look.at - since[key]
                    found.append(
                        Finding(look.at, f"{told.model}: {wrong[about]}, for {seconds:.0f} s")
                    )
    return found


def _can_report(look: Look, faults: Sequence[Happened]) -> bool:
    return (
        look.answered
        and look.operators > 0
        and not any(
            fault.taken.reporting and fault.began <= look.at <= fault.until(look.at)
            for fault in faults
        )
    )


def invented(looks: Sequence[Look], around: float = 30.0) -> list[Finding]:
    """Versions that a status called active although nobody was ever seen to answer with them."""
    found = []
    before: dict[str, int | None] = {}
    for index, look in enumerate(looks):
        for told in look.told:
            last = before.get(told.model)
            before[told.model] = told.active
            if told.active is None or told.active == last:
                continue
            near = (other for other in looks if abs(other.at - look.at) <= around)
            answered = {
                version
                for other in near
                for pod in other.pods
                if pod.model == told.model and pod.available
                for version in pod.available
            }
            unknown = not answered or index == 0
            if not unknown and told.active not in answered:
                found.append(
                    Finding(
                        look.at,
                        f"{told.model}: version {told.active} became active; only"
                        f" {_shown(answered)} ever answered",
                    )
                )
    return found


@dataclass(frozen=True)
class Expected:
    """What a model comes to in the end."""

    model: str
    version: int
    blocked: bool = False
    """Whether a newer version is bad."""


def unsettled(look: Look, expected: Iterable[Expected]) -> list[str]:
    """What is not yet as it has to be when no fault is there any more."""
    if not look.answered:
        return ["the API server does not answer"]
    found = [f"{node} is not Ready" for node in sorted(look.nodes_lost)]
    told = {each.model: each for each in look.told}
    for each in expected:
        status = told.get(each.model)
        if status is None:
            found.append(f"{each.model}: it has no status")
            continue
        pods = [pod for pod in look.pods if pod.model == each.model and not pod.leaving]
        answers = {pod.answers for pod in pods}
        if answers != {each.version}:
            found.append(
                f"{each.model}: pods answer with {_shown(answers) or 'nothing'}, not {each.version}"
            )
        if status.active != each.version:
            found.append(f"{each.model}: version {status.active} is active, not {each.version}")
        if status.ready != "True":
            found.append(f"{each.model}: not Ready: {status.reason}")
        if status.stalled == "True":
            found.append(f"{each.model}: Stalled")
        wanted = "BlockedByFailedLoad" if each.blocked else "UpToDate"
        if status.transition not in (wanted, "UpToDate"):
            found.append(f"{each.model}: {status.transition}, not {wanted}")
        found += [f"{each.model}: {text}" for text in contradictions(status, look.pods).values()]
    return found


def half(files: Mapping[str, int], whole: Iterable[Mapping[str, int]]) -> str:
    """What is wrong with a version in the base path: its files and their sizes, against those of
    each upload of that number; empty where it is one of them."""
    candidates = list(whole)
    if any(_same(files, each) for each in candidates):
        return ""
    if not candidates:
        return "nobody uploaded it"
    nearest = min(candidates, key=lambda each: len(set(each.items()) ^ set(files.items())))
    missing = sorted(set(nearest) - set(files))
    other = sorted(name for name in set(nearest) & set(files) if nearest[name] != files[name])
    strange = sorted(set(files) - set(nearest))
    return f"missing {missing}, of another size {other}, unknown {strange}"


def _same(files: Mapping[str, int], whole: Mapping[str, int]) -> bool:
    return dict(files) == dict(whole)


_MORE_THREADS = 8
_MORE_FILES = 24
_MORE_DISK = 1.5


def growth(
    usages: Sequence[Usage], before: Inventory, after: Inventory, *, judged: Iterable[str]
) -> list[str]:
    """What has become more, and should not have: of each process, and of the whole."""
    found = []
    by_process: dict[tuple[str, str], list[Usage]] = {}
    for usage in usages:
        by_process.setdefault((usage.kind, usage.process), []).append(usage)
    for (kind, process), samples in by_process.items():
        if kind not in judged:
            continue
        # One that comes to lead holds a connection to each pod.
        files = _MORE_FILES + (before.objects.get("pods", 0) if kind == "operator" else 0)
        found += _grown(kind, process, samples, files)
    for name, count in after.objects.items():
        allowed = before.objects.get(name, 0)
        if count > allowed:
            found.append(f"{count} {name}, of {allowed} before")
    found += after.left
    if before.bytes_on_disk and after.bytes_on_disk > _MORE_DISK * before.bytes_on_disk:
        found.append(f"{after.bytes_on_disk} bytes on disk, of {before.bytes_on_disk} before")
    return found


_WARM = 60.0
"""Seconds of a process in which it still gets what it needs."""


def _grown(kind: str, process: str, samples: Sequence[Usage], files: int) -> list[str]:
    warm = [sample for sample in samples if sample.at >= samples[0].at + _WARM]
    if not warm:
        return []
    found = []
    first, last = warm[0], warm[-1]
    if last.threads > first.threads + _MORE_THREADS:
        found.append(f"{kind} {process}: {last.threads} threads, of {first.threads}")
    if last.files > first.files + files:
        found.append(f"{kind} {process}: {last.files} open files, of {first.files}")
    try:
        line = trend([each.at for each in warm], [each.megabytes for each in warm])
    except ValueError:
        return found
    minutes = (last.at - first.at) / 60
    if minutes >= _LONG_MINUTES and line.is_growing and line.growth > _LEAST_MB:
        found.append(f"{kind} {process}: {line.growth:.1f} MB more in {minutes:.0f} minutes")
    return found


_LONG_MINUTES = 10.0
_LEAST_MB = 8.0
"""Faults leave caches that are fuller than before; what leaks goes on."""
