"""The poller on a real storage server and Google's own in-memory Pub/Sub; no cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from demo.storage import PROJECT, SUBSCRIPTION, SUBSCRIPTION_ID, Storage
from model_poller.status import SourceReason, VersionReason, VersionState
from tests.support.waiting import eventually
from tests.unit.poller.doubles import below, graph, model, tarred, zipped
from tests.unit.poller.program import Program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.pollers import Pods

pytestmark = pytest.mark.e2e

NEVER = "--poll-interval=3600"
"""Only notifications make it look."""


def listens(program: Program) -> None:
    def connected() -> bool:
        told = program.status().source.notifications
        return told is not None and told.connected

    eventually(connected, what="the subscription", within=30, every=0.05)


def test_a_notified_poller_brings_an_upload_without_waiting_for_its_next_look(
    storage: Storage, pods: Pods
) -> None:
    program = pods.start(NEVER, f"--pubsub-subscription={SUBSCRIPTION}")
    listens(program)
    storage.bucket.upload("imagenet/0001.zip", zipped(below("0001", model(b"x" * 40_000_000))))
    program.wait_for(1, VersionState.PUBLISHED)
    assert (pods.base() / "1/saved_model.pb").exists()
    storage.bucket.upload("other/9.zip", b"not ours")
    storage.bucket.upload("imagenet/2.tar.gz", tarred(below("2", model(b"2"))))
    program.wait_for(2, VersionState.PUBLISHED)
    assert [v.version for v in program.status().versions] == [2, 1]


def test_of_several_pollers_on_one_subscription_one_at_least_hears_of_an_upload(
    storage: Storage, pods: Pods
) -> None:
    programs = [
        pods.start(NEVER, f"--pubsub-subscription={SUBSCRIPTION}", name=f"pod-{i}")
        for i in range(3)
    ]
    for program in programs:
        listens(program)
    storage.bucket.upload("imagenet/1.zip", zipped(model()))
    eventually(
        lambda: any(v.version == 1 for p in programs for v in p.status().versions),
        what="one of them to know",
        within=30,
    )


def test_a_folder_is_taken_only_when_its_last_file_is_there(storage: Storage, pods: Pods) -> None:
    program = pods.start("--poll-interval=0.3")
    files = model(b"y" * 1000, shards=2)
    for name, reason in [
        ("variables/variables.data-00000-of-00002", VersionReason.MISSING_SAVED_MODEL),
        ("saved_model.pb", VersionReason.MISSING_VARIABLES),
        ("variables/variables.index", VersionReason.MISSING_VARIABLES),
    ]:
        storage.bucket.upload(f"imagenet/0001/{name}", files[name])

        def told(reason: VersionReason = reason) -> bool:
            return any(v.reason is reason for v in program.status().versions)

        eventually(told, what=f"{reason} after {name}", within=30, every=0.05)
        assert list(pods.base().iterdir()) == []
    last = "variables/variables.data-00001-of-00002"
    storage.bucket.upload(f"imagenet/0001/{last}", files[last])
    program.wait_for(1, VersionState.PUBLISHED)
    assert {
        p.relative_to(pods.base() / "1").as_posix(): p.read_bytes()
        for p in (pods.base() / "1").rglob("*")
        if p.is_file()
    } == files


def test_a_graph_without_its_variables_is_never_shown(storage: Storage, pods: Pods) -> None:
    program = pods.start("--poll-interval=0.3")
    storage.bucket.upload("imagenet/1/saved_model.pb", graph())
    eventually(
        lambda: any(v.reason is VersionReason.MISSING_VARIABLES for v in program.status().versions),
        what="the missing variables",
        within=30,
    )
    assert list(pods.base().iterdir()) == []


def test_deletion_is_mirrored_but_never_that_of_the_served_version(
    storage: Storage, pods: Pods
) -> None:
    program = pods.start("--poll-interval=0.3", "--retain-versions=3")
    for version in (1, 2, 3):
        storage.bucket.upload(f"imagenet/{version}.zip", zipped(model(b"%d" % version)))
        program.wait_for(version, VersionState.PUBLISHED)
    program.wait_for(1, VersionState.FETCHED)
    storage.bucket.delete("imagenet/1.zip")
    eventually(
        lambda: [v.version for v in program.status().versions] == [3, 2],
        what="version 1 to go",
        within=30,
    )
    for version in (2, 3):
        storage.bucket.delete(f"imagenet/{version}.zip")
    eventually(
        lambda: program.status().source.reason is SourceReason.NO_VERSION_FOUND,
        what="the empty bucket to be seen",
        within=30,
    )
    assert sorted(p.name for p in pods.base().iterdir()) == ["2", "3"]


def test_a_missing_subscription_is_told_and_versions_are_found_by_looking(
    storage: Storage, pods: Pods
) -> None:
    gone = "projects/development/subscriptions/gone"
    program = pods.start("--poll-interval=0.3", f"--pubsub-subscription={gone}")

    def told() -> bool:
        notifications = program.status().source.notifications
        return notifications is not None and "does not exist" in notifications.message

    eventually(told, what="the missing subscription", within=30)
    storage.bucket.upload("imagenet/1.zip", zipped(model()))
    program.wait_for(1, VersionState.PUBLISHED)


def test_a_missing_bucket_is_told(storage: Storage, pods: Pods) -> None:
    program = pods.start("--poll-interval=0.3", "--storage-uri=gs://nowhere/imagenet")
    eventually(
        lambda: program.status().source.reason is SourceReason.BUCKET_NOT_FOUND,
        what="the missing bucket",
        within=30,
    )
    assert "nowhere" in program.status().source.message


def test_without_a_storage_uri_folders_are_learnt_and_remembered(
    storage: Storage, tmp_path: Path
) -> None:
    save_dir = tmp_path / "resnet"

    def start() -> Program:
        return Program(
            tmp_path,
            f"--endpoint={storage.url}",
            "--anonymous",
            "--server-address=127.0.0.1:9",
            PROJECT_ID=PROJECT,
            SUBSCRIPTION=SUBSCRIPTION_ID,
            SAVE_DIR=str(save_dir),
            PUBSUB_EMULATOR_HOST=storage.pubsub,
        )

    first = start()
    try:
        listens(first)
        storage.bucket.upload("resnet/0001.zip", zipped(below("0001", model())))
        first.wait_for(1, VersionState.PUBLISHED)
    finally:
        first.kill()
    storage.bucket.upload("resnet/0002.zip", zipped(below("0002", model(b"2"))))
    storage.end(storage.pubsub)
    second = start()
    try:
        second.wait_for(2, VersionState.PUBLISHED)
    finally:
        second.kill()
