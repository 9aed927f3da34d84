"""What to do next, as a pure function of what is.

``plan`` looks only at the present: the volume, the listing, the model server's words and a few
memories of this process. So it may run at any time, twice, or after a kill, and always leads to
the same end: the target served, verified versions only, the previous one kept until the new one
answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from model_poller import handover
from model_poller.actions import (
    Fetch,
    Prove,
    Publish,
    Quarantine,
    Release,
    Remove,
    Retire,
    StopFetch,
    TryAgain,
)
from model_poller.status import ServedVersion, VersionReason
from model_poller.versions import Interest
from model_poller.volume.store import RESERVE_BYTES, Disk, Quarantined, Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from model_poller.actions import Action
    from model_poller.books import Publication
    from model_poller.failures import Retry
    from model_poller.versions import StoredVersion, Verdict
    from model_poller.volume.assignment import Assignment

LOAD_SECONDS = 1800.0
"""How long a load may take. A model server that starts opens no port before its first one, so the
startup probe of its container has to wait as long."""
AWAY_SECONDS = 600.0
"""How long a model server that went away while it loaded a version is waited for with that version
in its base path. The kubelet starts a container again after at most 300 s."""
STALE_END_SECONDS = 30.0
"""How long a failure that the server reported already before a publish is taken for the old one.

TF Serving keeps the last state of an unloaded version for ever, and takes up to its poll interval
(1 s by default) to see a new one of the same number.
"""
ABSENCE_SECONDS = 3.0
"""How long a version that failed to load stays out of the base path before it may come back.

TF Serving tries a number again only after it has seen it gone, which takes it up to its poll
interval (1 s by default).
"""
LEAVING_SECONDS = 10.0
"""So long the server's words of what left are waited for; it unloads it with its next look, or the
one after a request that runs."""
COMPANION_SECONDS = 300.0
"""How long a new pod waits for the versions that are served beside its target, once it has that."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings that decide."""

    follow_newest: bool
    """Standalone: nobody tells a target, the newest complete version is it."""
    num_versions: int = 1
    retain_versions: int = 2
    load_timeout: float = LOAD_SECONDS
    """Seconds that the model server may take for a load, while it is there."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What is, at one moment."""

    now: float
    """Monotonic seconds."""
    disk: Disk
    free_bytes: int
    found: Mapping[int, StoredVersion] | None
    """The last successful listing; None: there was none yet."""
    listing_is_fresh: bool
    """Whether the last look succeeded."""
    served: tuple[ServedVersion, ...] | None
    """None: the model server does not answer."""
    server_was_seen: bool
    """Whether it ever answered this process."""
    assignment: Assignment
    fetching: StoredVersion | None
    publications: Mapping[int, Publication] = field(default_factory=dict)
    retries: Mapping[int, Retry] = field(default_factory=dict)
    left: Mapping[int, float] = field(default_factory=dict)
    """When versions left the base path; monotonic seconds."""
    suspects: Mapping[int, int] = field(default_factory=dict)
    """How often the model server went away over a version that it had to load."""
    started: float = 0.0
    """When this process began; monotonic seconds."""
    retried: str = ""
    """The last `RolloutTask.retry` that was followed."""
    former: Disk = field(default_factory=lambda: Disk({}, {}, {}))
    """Versions on the volume that came from another storage URI, which ``disk`` is without."""
    undone: Mapping[int, Verdict] = field(default_factory=dict)
    """Why versions are not where they should be on the volume."""
    links: bool = False
    """Whether folder versions are shown by links, which need no room."""

    @property
    def answering(self) -> int | None:
        """The version that answers a request which names none."""
        return max((s.version for s in self.served or () if s.state == "AVAILABLE"), default=None)

    def available(self, version: int) -> bool:
        """Whether the model server answers requests with it."""
        return any(s.version == version and s.state == "AVAILABLE" for s in self.served or ())


def goal(seen: Observed, policy: Policy) -> int | None:
    """The version that should be served here."""
    if policy.follow_newest:
        here = {v for v in seen.disk.complete - _outdated(seen) if not is_withheld(seen, v)}
        return max(here - {v for v in here if is_set_aside(seen, policy, v)} or here, default=None)
    # The target is the highest of what is served, but for one that failed and is asked for still.
    return max(seen.assignment.served, default=seen.assignment.target)


def is_withheld(seen: Observed, version: int) -> bool:
    """Whether what is here of a version, or else what is stored, failed on another pod."""
    known = (
        seen.disk.published.get(version)
        or seen.disk.retained.get(version)
        or (seen.found or {}).get(version)
    )
    return known is not None and (version, known.fingerprint) in seen.assignment.quarantined


def is_set_aside(seen: Observed, policy: Policy, version: int) -> bool:
    """Whether a version waits until the model server is there again, which may not bear it.

    Alone, nobody else counts a server's restarts. That it went away while it loaded a version is no
    proof: a node may be slow, an image may have to be pulled. So it is given to it once more.
    """
    if not policy.follow_newest or seen.served is not None:
        return False
    others = {**seen.disk.retained, **seen.disk.published}
    if not any(
        record.proven or (other in seen.publications and seen.publications[other].served)
        for other, record in others.items()
        if other != version and other not in seen.suspects and not is_withheld(seen, other)
    ):
        return False
    publication = seen.publications.get(version)
    if publication is None:
        return version in seen.suspects
    since = publication.silent_since
    return since is not None and seen.now - since > AWAY_SECONDS


def is_complete_at_start(seen: Observed, policy: Policy) -> bool:
    """Whether a model server that starts now has in its base path what it is to begin with.

    That is the target and, of the versions beside it, those that can be had by
    `COMPANION_SECONDS` after it; or anything from before, while the target is still on its way.
    """
    target = goal(seen, policy)
    publication = seen.publications.get(target) if target is not None else None
    if not seen.disk.published or publication is None:
        return bool(seen.disk.published)
    late = seen.now - publication.since >= COMPANION_SECONDS
    missing = _wanted(seen, policy) - seen.disk.published.keys()
    return late or not any(_can_be_had(seen, version) for version in missing)


def _can_be_had(seen: Observed, version: int) -> bool:
    if version in seen.disk.retained:
        return not is_withheld(seen, version)
    stored = _candidates(seen).get(version)
    if stored is None:
        return False
    if stored == seen.fetching:
        return True
    retry = last_failure(seen, stored)
    is_hopeless = retry is not None and retry.is_hopeless
    return not is_hopeless and seen.free_bytes >= room_needed(seen, stored)


def _outdated(seen: Observed) -> set[int]:
    """Versions that were fetched but never served, and whose stored objects changed since."""
    loose = seen.disk.retained.keys() - seen.disk.published.keys()
    return {version for version in loose if _is_changed(seen, version)}


def unvouched(seen: Observed) -> set[int]:
    """Retained versions whose files are those in the source, as no look has seen them of late.

    What was checked once may have been overwritten since, and nobody would check it again.
    """
    found = seen.found or {}
    return {
        version
        for version, record in seen.disk.retained.items()
        if record.linked
        and not (
            version in found
            and found[version].is_known
            and found[version].fingerprint == record.fingerprint
        )
    }


def is_stopped_by_quarantine(seen: Observed, version: int) -> bool:
    """Whether the version failed before, with the objects that are stored now."""
    entry = seen.disk.quarantined.get(version)
    stored = (seen.found or {}).get(version)
    return entry is not None and (stored is None or stored.fingerprint == entry.fingerprint)


def fetch_size(stored: StoredVersion) -> int:
    """Free bytes that a fetch needs: an archive and what comes out of it lie side by side."""
    return stored.size * (2 if stored.is_archive else 1)


def last_failure(seen: Observed, stored: StoredVersion) -> Retry | None:
    """What came of the last try to fetch these objects, unless it succeeded."""
    retry = seen.retries.get(stored.version)
    return retry if retry and retry.fingerprint == stored.fingerprint else None


def room_needed(seen: Observed, stored: StoredVersion) -> int:
    """Bytes that have to be free before a version is fetched, the reserve included."""
    retry = last_failure(seen, stored)
    size = 0 if seen.links and not stored.is_archive else fetch_size(stored)
    return max(retry.needed if retry else 0, size) + RESERVE_BYTES


def way_to_room(seen: Observed, policy: Policy, needed: int) -> str:
    """What somebody has to do so that so many bytes become free.

    What is served stays until the new version answers, so retaining less does not always help.
    """
    kept = [
        record
        for version, record in seen.disk.retained.items()
        if version not in _wanted(seen, policy) | seen.disk.published.keys()
    ]
    size = sum(record.size for record in kept)
    if kept and seen.free_bytes + size >= needed:
        return f"retain fewer versions, for those beside what is served take {size} bytes"
    lacking = f"enlarge the volume by {needed - seen.free_bytes} bytes"
    # Of links it is known that they take nothing.
    may_help = not seen.links and any(not record.size for record in kept)
    return f"{lacking}, or retain fewer versions" if may_help else lacking


def interest(seen: Observed, policy: Policy) -> Interest:
    """Which versions may be fetched, so that a look has to look into them.

    Those that failed still are to be looked into, but behind them others are needed, too.
    """
    told = frozenset(_asked(seen)) | (_wanted(seen, policy) & unvouched(seen))
    if not policy.follow_newest:
        told |= {*seen.assignment.served}
    if seen.assignment.target is not None and not policy.follow_newest:
        told |= {seen.assignment.target}
    if seen.fetching:
        # What is above it by now doesn't stop it.
        told |= {seen.fetching.version}
    here = {**seen.disk.retained, **seen.disk.published}
    too_large = (
        (version, stored.fingerprint)
        for version, stored in (seen.found or {}).items()
        if stored.is_known and seen.free_bytes < room_needed(seen, stored)
    )
    quarantined = {(v, entry.fingerprint) for v, entry in seen.disk.quarantined.items()}
    quarantined |= seen.assignment.quarantined
    retried = {(version, retry.fingerprint) for version, retry in seen.retries.items()}
    here_or_coming = {v: record.fingerprint for v, record in here.items()}
    if seen.fetching:
        here_or_coming[seen.fetching.version] = seen.fetching.fingerprint
    return Interest(
        newest=max(here.keys() - {v for v in here if is_withheld(seen, v)}, default=-1),
        wanted=told,
        failed=frozenset({*quarantined, *retried, *too_large}),
        known={**dict(quarantined), **here_or_coming},
    )


def plan(seen: Observed, policy: Policy) -> list[Action]:
    """The actions that bring what is closer to what should be; empty when there are none.

    They are independent of one another, so a failed one does not spoil the rest. What frees space
    comes before what needs it; what only remembers is apart (`proofs`).
    """
    fetches = list(_fetches(seen, policy))
    numbers = seen.former.complete
    actions = [
        *_orders(seen),
        *_releases(seen),
        *_failed_loads(seen, policy),
        *_publications(seen, policy),
        *_removals(seen, policy),
        *_former_versions(seen, policy, fetches),
        # A number has one place on the volume.
        *(a for a in fetches if not (isinstance(a, Fetch) and a.stored.version in numbers)),
    ]
    return handover.without_gap(seen, actions)


def proofs(seen: Observed) -> Iterator[Action]:
    """What is to be remembered on the disk, which nothing else waits for."""
    for version, record in seen.disk.published.items():
        publication = seen.publications.get(version)
        if publication and publication.served and not record.proven:
            yield Prove(record)


def change_is_under_way(seen: Observed, policy: Policy) -> bool:
    """Whether the model server's next words are waited for.

    Also of what left: as long as that has the higher number, it is what answers.
    """
    if policy.follow_newest and not seen.server_was_seen:
        return False
    for word in seen.served or ():
        left = seen.left.get(word.version)
        is_leaving = word.state != "END" and word.version not in seen.disk.published
        if is_leaving and left is not None and seen.now - left < LEAVING_SECONDS:
            return True
    return any(
        not seen.available(version)
        and (publication := seen.publications.get(version)) is not None
        and (seen.now - publication.since if seen.served is None else publication.loading)
        < policy.load_timeout
        for version in _wanted(seen, policy) & seen.disk.published.keys()
    )


def _orders(seen: Observed) -> Iterator[Action]:
    """Also where nothing failed here: what fails later was not meant by it."""
    task = seen.assignment.rollout
    if task and task.retry not in ("", seen.retried):
        yield TryAgain(task.retry)


def _releases(seen: Observed) -> Iterator[Action]:
    if not (seen.listing_is_fresh and seen.found):
        return
    for version in seen.disk.quarantined:
        if not is_stopped_by_quarantine(seen, version) or version not in seen.found:
            yield Release(version)


def _failed_loads(seen: Observed, policy: Policy) -> Iterator[Action]:
    target = goal(seen, policy)
    for version, record in seen.disk.published.items():
        publication = seen.publications.get(version)
        if publication is None or publication.served:
            continue
        age = seen.now - publication.since
        seconds = publication.loading
        ended = ended_with_error(seen, version)
        if ended and not (publication.end_is_stale and age < STALE_END_SECONDS):
            reason = VersionReason.LOAD_FAILED
            message = f"the model server could not load it: {ended.error_message}"
            if publication.end_is_stale:
                message += (
                    " (this may be its word on an earlier one of this number, if it never tried"
                    " again: upload it under a higher number)"
                )
        elif version == target and seconds > policy.load_timeout:
            reason = VersionReason.LOAD_TIMEOUT
            message = (
                f"the model server was there for {seconds:.0f} s after it was given to it, and it"
                " was not AVAILABLE; look at that container's log, or allow more by --load-timeout"
            )
        elif version in seen.suspects and is_set_aside(seen, policy, version):
            reason = VersionReason.LOAD_TIMEOUT
            message = (
                f"the model server went away for more than {AWAY_SECONDS:.0f} s while it loaded it,"
                " and did so again when it was given to it once more; look at that container's log"
                " and memory"
            )
        else:
            continue
        yield Quarantine(Quarantined(version, record.fingerprint, reason, message))


def _is_judged(seen: Observed, policy: Policy) -> bool:
    """Standalone beside a server that was never there, nothing is judged by its silence."""
    return seen.server_was_seen or not policy.follow_newest


def ended_with_error(seen: Observed, version: int) -> ServedVersion | None:
    """The model server's report that a version could not be loaded."""
    for served in seen.served or ():
        if served.version == version and served.state == "END" and served.error_code != "OK":
            return served
    return None


def _asked(seen: Observed) -> set[int]:
    """The version that a rollout wants to be here before this pod is to serve it."""
    task = seen.assignment.rollout
    return {task.version} if task and task.fetch else set()


def _wanted(seen: Observed, policy: Policy) -> set[int]:
    """The versions that should be in the base path once the target answers."""
    target = goal(seen, policy)
    if target is None:
        return set()
    if seen.assignment.served and not policy.follow_newest:
        return set(seen.assignment.served)
    below = sorted(
        (v for v in seen.disk.complete if v < target and not is_withheld(seen, v)), reverse=True
    )
    return {target, *below[: policy.num_versions - 1]}


def _publications(seen: Observed, policy: Policy) -> Iterator[Action]:
    target = goal(seen, policy)
    failed = {
        action.entry.version
        for action in _failed_loads(seen, policy)
        if isinstance(action, Quarantine)
    }
    given_up = {v for v in seen.disk.published if v not in failed and _is_given_up(seen, policy, v)}
    for version in sorted(given_up, reverse=True):
        yield Retire(version)
    if target is None or target not in seen.disk.complete:
        return
    withheld = {v for v in seen.disk.complete if is_withheld(seen, v)}
    if target in failed or target in withheld:
        return
    wanted = _wanted(seen, policy) - withheld
    loose = seen.disk.retained.keys() - seen.disk.published.keys()
    ready = loose - _outdated(seen) - unvouched(seen)
    for version in sorted(wanted & ready, reverse=True):
        absent = seen.now - seen.left.get(version, seen.started)
        ended = ended_with_error(seen, version) is not None
        if absent >= ABSENCE_SECONDS or not ended:
            yield Publish(version, end_is_stale=ended)
    others = sorted(seen.disk.published.keys() - wanted - failed - given_up, reverse=True)
    if policy.follow_newest and not seen.server_was_seen:
        # Nobody will say AVAILABLE: the version before stays, older ones make room.
        others = others[1:]
    elif not seen.available(target):
        # One that never served has nothing to lose, and may be what brings the server down at
        # every start: told to serve another one, it leaves before that one answers.
        silent = seen.served is None and not policy.follow_newest
        early = set() if policy.follow_newest else handover.leave_early(seen, target, wanted)
        others = [
            v
            for v in others
            if (silent and not _has_served(seen, v)) or is_set_aside(seen, policy, v) or v in early
        ]
    for version in others:
        yield Retire(version)


def _is_given_up(seen: Observed, policy: Policy, version: int) -> bool:
    """Whether a published version leaves before any other one answers.

    It failed elsewhere or was uploaded anew, it doesn't serve, and it may be what keeps the model
    server from serving.
    """
    silent = seen.served is None and _is_judged(seen, policy)
    if not _has_served(seen, version):
        return is_withheld(seen, version) or (silent and _is_changed(seen, version))
    # It may come back, so there has to be something in its place.
    target = goal(seen, policy)
    replaced = target is not None and target != version and target in seen.disk.complete
    return silent and replaced and is_withheld(seen, version)


def _is_changed(seen: Observed, version: int) -> bool:
    """Whether a version on disk is another one in the source by now, and was never served.

    Where its files are those in the source, it is no longer what was checked, served or not, whole
    or not.
    """
    record = seen.disk.published.get(version) or seen.disk.retained.get(version)
    stored = (seen.found or {}).get(version)
    if not record or not stored or record.fingerprint in ("", stored.fingerprint):
        return False
    return stored.is_known if record.linked else not record.proven and stored.incomplete is None


def _has_served(seen: Observed, version: int) -> bool:
    publication = seen.publications.get(version)
    return publication is None or publication.served


def _removals(seen: Observed, policy: Policy) -> Iterator[Action]:
    disk = seen.disk
    target = goal(seen, policy)
    busy = _busy(seen)
    newest = max(_candidates(seen), default=None)
    task = seen.assignment.rollout
    back = task.keep if task else None
    wanted = _wanted(seen, policy) | {v for v in (target, newest, back) if v is not None}
    wanted |= _asked(seen)
    withheld = {v for v in disk.retained if is_withheld(seen, v)}
    kept = disk.published.keys() | busy | (wanted - withheld)
    outdated = _outdated(seen)
    for version in sorted(outdated):
        is_link = disk.retained[version].linked
        why = "is only linked" if is_link else "was never served"
        yield Remove(version, f"its stored objects changed, and it {why}")
    loose = sorted(disk.retained.keys() - kept - outdated)
    left = disk.complete - outdated
    stored = seen.found or {}
    has_versions = any(v.incomplete is None for v in stored.values())
    for version in loose:
        record, twin = disk.retained[version], stored.get(version)
        gone = seen.listing_is_fresh and has_versions and twin is None and record.fingerprint
        is_needed = task is not None and (task.version, task.stable) == (target, version)
        if version in withheld:
            why = "it failed on another pod"
        elif gone and len(left) > 1 and not is_needed:
            why = "it was deleted from the source"
        elif len(left) > max(policy.retain_versions, policy.num_versions):
            why = f"{policy.retain_versions} versions are retained"
        else:
            continue
        left.discard(version)
        yield Remove(version, why)


def _former_versions(seen: Observed, policy: Policy, fetches: Iterable[Action]) -> Iterator[Action]:
    """What another storage URI's versions give way to: the first one of this URI that serves.

    One whose number is needed gives way before, for a server that has a number loaded does not
    look at it again.
    """
    target = goal(seen, policy)
    nobody_answers = policy.follow_newest and not seen.server_was_seen
    is_replaced = target in seen.disk.published and (
        nobody_answers or (target is not None and seen.available(target))
    )
    needed = {action.stored.version for action in fetches if isinstance(action, Fetch)}
    for version in sorted(seen.former.published, reverse=True):
        if is_replaced or version in needed:
            yield Retire(version)
    busy = _busy(seen)
    for version, record in sorted(seen.former.retained.items()):
        if version not in busy and version not in seen.former.published:
            yield Remove(version, f"it came from {record.source}")


def _busy(seen: Observed) -> set[int]:
    """The versions that the model server has, or is about to have or to leave."""
    return {s.version for s in seen.served or () if s.state != "END"}


def _candidates(seen: Observed) -> dict[int, StoredVersion]:
    return {
        version: stored
        for version, stored in (seen.found or {}).items()
        # Nobody has looked into the others, which is done once they are wanted.
        if stored.is_known
        and stored.incomplete is None
        and not is_stopped_by_quarantine(seen, version)
        and (version, stored.fingerprint) not in seen.assignment.quarantined
    }


def _fetches(seen: Observed, policy: Policy) -> Iterator[Action]:
    candidates = _candidates(seen)
    on_disk = seen.disk.complete
    wanted: list[StoredVersion] = []
    urgent = None
    if not policy.follow_newest:
        target, asked = goal(seen, policy), _asked(seen)
        first = [v for v in (target, *asked) if v in candidates and v not in on_disk]
        urgent = candidates[first[0]] if first else None
        missing = sorted((_wanted(seen, policy) | asked) - on_disk, reverse=True)
        wanted += [candidates[version] for version in missing if version in candidates]
    newest_here = max(on_disk, default=-1)
    newer = sorted((v for v in candidates if v > newest_here), reverse=True)
    wanted += [candidates[version] for version in newer if candidates[version] not in wanted]
    if seen.fetching is None:
        if stored := _first_to_be_had(seen, policy, wanted):
            yield Fetch(stored)
        return
    version, fingerprint = seen.fetching.version, seen.fetching.fingerprint
    current = (seen.found or {}).get(version)
    outdated = (
        current is None
        or current.fingerprint != fingerprint
        or (version, fingerprint) in seen.assignment.quarantined
    )
    overtaken = urgent is not None and urgent != seen.fetching and _may_start(seen, urgent)
    if outdated or overtaken:
        yield StopFetch()


def _first_to_be_had(
    seen: Observed, policy: Policy, wanted: Iterable[StoredVersion]
) -> StoredVersion | None:
    """The first that may be fetched now; none while one before it is about to be tried again."""
    for stored in wanted:
        if _may_start(seen, stored) and _would_stay(seen, policy, stored):
            return stored
        if _holds_up_others(seen, stored):
            return None
    return None


def _may_start(seen: Observed, stored: StoredVersion) -> bool:
    retry = last_failure(seen, stored)
    if retry and seen.now < retry.not_before:
        return False
    return seen.free_bytes >= room_needed(seen, stored)


def _holds_up_others(seen: Observed, stored: StoredVersion) -> bool:
    """Whether a version that failed is waited for before another one is begun.

    What came of it already is thrown away for another one. So it gets a second try; and where the
    source or the warm-up requests can't be read, any other version would fail as well.
    """
    retry = last_failure(seen, stored)
    if retry is None or retry.is_hopeless or seen.free_bytes < room_needed(seen, stored):
        return False
    is_not_its_own = retry.verdict.reason is VersionReason.WARMUP_UNAVAILABLE
    return retry.attempts == 1 or is_not_its_own or not seen.listing_is_fresh


def _would_stay(seen: Observed, policy: Policy, stored: StoredVersion) -> bool:
    """Whether a version that is fetched now is not removed at once, to be fetched again."""
    record = Record(stored.version, stored.fingerprint)
    retained = {**seen.disk.retained, stored.version: record}
    later = replace(seen, disk=replace(seen.disk, retained=retained))
    removals = (a.version for a in _removals(later, policy) if isinstance(a, Remove))
    return stored.version not in removals
