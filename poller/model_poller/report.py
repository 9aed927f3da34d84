"""From what is to what ``/status`` tells; pure."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from model_poller.descriptions import key
from model_poller.planner import (
    Observed,
    ended_with_error,
    goal,
    is_set_aside,
    is_stopped_by_quarantine,
    is_withheld,
    last_failure,
    room_needed,
    way_to_room,
)
from model_poller.status import (
    DiskStatus,
    Interface,
    LiveStatus,
    NotificationsStatus,
    PollerStatus,
    SourceStatus,
    VersionReason,
    VersionState,
    VersionStatus,
)
from model_poller.versions import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from model_poller.descriptions import Description, Key
    from model_poller.planner import Policy
    from model_poller.status import CacheStatus, GoldenStatus, ServedVersion

MAX_VERSIONS = 50
"""Of versions that are only in the bucket, the newest so many are told, and of those that were
quarantined or that the model server has ended."""
MAX_BYTES = 2**63 - 1
"""A listing may tell more than any reader of the status takes for a number."""
MAX_TEXT = 1024
"""Characters of a message: a model server may say any number of them. A hundred versions with two
messages each, every character of them escaped, are 1.2 MB, below what the operator reads."""


MAX_INTERFACE_BYTES = 512 << 10
"""Of the interfaces of all versions. One has up to 64 KiB, and two are compared with each other."""

_TOO_MANY = Interface(message="it is not told: those of other versions take all the room")
_NO_CHECKS: Mapping[int, GoldenStatus] = MappingProxyType({})
_SET_ASIDE = Verdict(
    VersionReason.LOAD_TIMEOUT,
    "the model server went away while it loaded it; it is given to it once more when it is back",
)


def build(
    seen: Observed,
    policy: Policy,
    *,
    model: str,
    source: SourceStatus,
    notifications: NotificationsStatus | None,
    bytes_done: int,
    seconds_left: int | None,
    total_bytes: int,
    descriptions: Mapping[Key, Description] | None = None,
    golden: Mapping[int, GoldenStatus] = _NO_CHECKS,
    live: LiveStatus | None = None,
    draining: bool = False,
    cache: CacheStatus | None = None,
    note: str = "",
) -> PollerStatus:
    """The whole answer of ``GET /status``, but for its revision.

    ``descriptions`` are those of versions that are or were on the disk; None: nobody reads them.
    ``note`` is what goes on with the version that is fetched.
    """
    disk = seen.disk
    assignment = seen.assignment
    target = goal(seen, policy) if policy.follow_newest else assignment.target
    here = {
        *disk.complete,
        *sorted(disk.quarantined, reverse=True)[:MAX_VERSIONS],
        *assignment.served,
        *seen.former.complete,
    }
    if target is not None:
        here.add(target)
    elsewhere = sorted((seen.found or {}).keys() - here, reverse=True)[:MAX_VERSIONS]
    told = None if descriptions is None else _told(seen, descriptions, source.uri)
    source = msgspec.structs.replace(source, message=_brief(source.message))
    return PollerStatus(
        revision="",
        model=model,
        target=target,
        assigned=assignment.texts,
        source=msgspec.structs.replace(
            source,
            notifications=notifications
            and msgspec.structs.replace(notifications, message=_brief(notifications.message)),
        ),
        versions=tuple(
            msgspec.structs.replace(
                _version(seen, policy, version, bytes_done, seconds_left, told, note),
                golden=_checked(golden.get(version)),
            )
            for version in sorted(here.union(elsewhere), reverse=True)
        ),
        server_reachable=seen.served is not None,
        served=_served(seen.served or ()),
        disk=DiskStatus(free_bytes=seen.free_bytes, total_bytes=total_bytes),
        cache=cache and msgspec.structs.replace(cache, message=_brief(cache.message)),
        live=live,
        draining=draining,
    )


def _checked(golden: GoldenStatus | None) -> GoldenStatus | None:
    return golden and msgspec.structs.replace(golden, message=_brief(golden.message))


def _told(
    seen: Observed, descriptions: Mapping[Key, Description], uri: str
) -> dict[int, Description]:
    """Those of the versions on the disk, and then of those that have left it while their objects
    are still known, of so many interfaces as a reader takes."""
    candidate = seen.assignment.rollout.version if seen.assignment.rollout else None
    asked = {*seen.assignment.served, seen.assignment.target, candidate}
    parts = (seen.former, seen.disk)
    records = {v: r for part in parts for v, r in {**part.retained, **part.published}.items()}
    told, left = {}, MAX_INTERFACE_BYTES
    for version in sorted(records, key=lambda v: (seen.available(v), v in asked, v), reverse=True):
        if (found := descriptions.get(key(records[version]))) is None:
            continue
        left -= found.size
        told[version] = found if left >= 0 else replace(found, interface=_TOO_MANY)
    for (version, fingerprint, origin), found in descriptions.items():
        known = (seen.found or {}).get(version) or seen.disk.quarantined.get(version)
        is_same = known is not None and known.fingerprint == fingerprint and origin in ("", uri)
        if is_same and version not in records and found.size <= left:
            left -= found.size
            told[version] = found
    return told


def _served(served: Sequence[ServedVersion]) -> tuple[ServedVersion, ...]:
    """The model server's words, within bounds: it never forgets a version."""
    ended = sorted((s.version for s in served if s.state == "END"), reverse=True)[:MAX_VERSIONS]
    return tuple(
        msgspec.structs.replace(entry, error_message=_brief(entry.error_message))
        for entry in served
        if entry.state != "END" or entry.version in ended
    )


def _brief(text: str) -> str:
    # What is no Unicode, such as some files' names, could not be written as JSON.
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def _version(
    seen: Observed,
    policy: Policy,
    version: int,
    bytes_done: int,
    seconds_left: int | None,
    told: Mapping[int, Description] | None,
    note: str,
) -> VersionStatus:
    stored = (seen.found or {}).get(version)
    record = seen.disk.published.get(version) or seen.disk.retained.get(version)
    entry = seen.disk.quarantined.get(version)
    state, verdict = _state(seen, policy, version)
    former = seen.former.published.get(version) or seen.former.retained.get(version)
    if former:
        verdict = Verdict(
            VersionReason.ANOTHER_SOURCE,
            f"version {version} on the model volume came from {former.source}; it leaves when a"
            f" version of the present storage URI is served",
        )
    changed = bool(
        record and stored and record.fingerprint and stored.fingerprint != record.fingerprint
    )
    if changed and not verdict:
        verdict = Verdict(
            VersionReason.CHANGED_AFTER_PUBLISH,
            f"the objects of version {version} changed after it was fetched; what was fetched"
            " stays. Upload changes under a new number.",
        )
    description = (told or {}).get(version)
    if state is VersionState.FETCHED and told is not None and description is None:
        # Whoever judges a version by its interface would take it for one without.
        state, seconds_left = VersionState.FETCHING, None
    is_fetched = state is VersionState.FETCHING and record is None
    retry = last_failure(seen, stored) if stored else None
    total = min(stored.size, MAX_BYTES) if stored else 0
    done = total if record else bytes_done if state is VersionState.FETCHING else 0
    known = stored or record or entry
    return VersionStatus(
        version=version,
        state=state,
        in_source=stored is not None,
        fingerprint=known.fingerprint if known else "",
        disk_fingerprint=record.fingerprint if record and changed else "",
        bytes_done=done,
        seconds_left=seconds_left if state is VersionState.FETCHING else None,
        failures=retry.attempts if retry else 0,
        bytes_total=total,
        reason=verdict.reason if verdict else None,
        message=_brief(verdict.message if verdict else note if is_fetched else ""),
        proven=record is not None and (record.proven or seen.available(version)),
        weight_bytes=min(description.weight_bytes, MAX_BYTES) if description else 0,
        interface=description.interface if description else None,
    )


def _state(seen: Observed, policy: Policy, version: int) -> tuple[VersionState, Verdict | None]:
    disk = seen.disk
    if version in disk.published:
        if seen.available(version):
            return VersionState.AVAILABLE, None
        publication = seen.publications.get(version)
        is_news = publication is not None and not publication.end_is_stale
        if is_news and (served := ended_with_error(seen, version)):
            message = f"the model server could not load it: {served.error_message}"
            return VersionState.PUBLISHED, Verdict(VersionReason.LOAD_FAILED, message)
        return VersionState.PUBLISHED, None
    if version in disk.retained:
        proven = disk.retained[version].proven
        state = VersionState.RETIRED if proven else VersionState.FETCHED
        if is_set_aside(seen, policy, version):
            return state, _SET_ASIDE
        return state, seen.undone.get(version)
    if is_stopped_by_quarantine(seen, version):
        entry = disk.quarantined[version]
        return VersionState.QUARANTINED, Verdict(entry.reason, entry.message)
    if seen.fetching and seen.fetching.version == version:
        # Why the try before failed is told until one succeeds.
        retry = last_failure(seen, seen.fetching)
        return VersionState.FETCHING, retry.verdict if retry else None
    stored = (seen.found or {}).get(version)
    if stored and not stored.incomplete and is_withheld(seen, version):
        return VersionState.DISCOVERED, Verdict(
            VersionReason.QUARANTINED_ELSEWHERE,
            f"version {version} failed on another pod, and is not fetched here until its stored"
            " objects change; see status.model.quarantined",
        )
    if stored is None:
        return VersionState.INCOMPLETE, Verdict(
            VersionReason.MISSING_SAVED_MODEL,
            f"version {version} is not in the source; upload it, or choose another one",
        )
    if stored.incomplete:
        return VersionState.INCOMPLETE, stored.incomplete
    if retry := last_failure(seen, stored):
        # Nothing but new objects helps: the version is as incomplete as a listing could show.
        state = VersionState.INCOMPLETE if retry.is_hopeless else VersionState.DISCOVERED
        return state, retry.verdict
    if seen.free_bytes < (needed := room_needed(seen, stored)):
        return VersionState.DISCOVERED, Verdict(
            VersionReason.INSUFFICIENT_DISK,
            f"{needed} bytes are needed and {seen.free_bytes} are free on the model"
            f" volume; it is fetched when there is room: {way_to_room(seen, policy, needed)}",
        )
    return VersionState.DISCOVERED, None
