"""``--once``: one version, then an end whose code says how it went."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest

from model_poller.errors import InvalidSettingsError
from model_poller.main import main
from model_poller.once import ExitCode, at_timeout, outcome
from model_poller.settings import parse
from model_poller.status import (
    PollerStatus,
    SourceReason,
    SourceState,
    SourceStatus,
    VersionReason,
    VersionState,
    VersionStatus,
)
from model_poller.volume.store import RESERVE_BYTES
from tests.unit.poller.answering import Answering, Reply, Request
from tests.unit.poller.doubles import graph, model, zipped

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LISTED = SourceStatus(uri="gs://b", state=SourceState.READY, reason=SourceReason.LISTED)


def status(
    source: SourceStatus = LISTED, /, **versions: VersionState | VersionStatus
) -> PollerStatus:
    return PollerStatus(
        revision="r",
        model="m",
        source=source,
        versions=tuple(
            msgspec.structs.replace(known, version=int(name[1:]))
            if isinstance(known, VersionStatus)
            else VersionStatus(version=int(name[1:]), state=known, in_source=True)
            for name, known in versions.items()
        ),
    )


def failing(
    state: VersionState, failures: int, reason: VersionReason = VersionReason.FETCH_FAILED
) -> VersionStatus:
    return VersionStatus(version=0, state=state, in_source=True, reason=reason, failures=failures)


def failed(reason: SourceReason) -> SourceStatus:
    return SourceStatus(uri="gs://b", state=SourceState.FAILED, reason=reason)


S = VersionState


@pytest.mark.parametrize(
    ("seen", "wanted", "expected"),
    [
        (status(SourceStatus(uri="gs://b")), None, None),
        (status(v1=S.FETCHING), None, None),
        (status(v1=S.PUBLISHED), None, ExitCode.PUBLISHED),
        (status(v2=S.FETCHING, v1=S.PUBLISHED), None, None),
        (status(v2=S.INCOMPLETE, v1=S.PUBLISHED), None, ExitCode.PUBLISHED),
        (status(v2=S.QUARANTINED, v1=S.PUBLISHED), None, ExitCode.PUBLISHED),
        (status(v2=S.QUARANTINED, v1=S.QUARANTINED), None, ExitCode.BROKEN),
        (status(v2=S.QUARANTINED, v1=S.PUBLISHED), 2, ExitCode.BROKEN),
        (status(v2=S.PUBLISHED, v1=S.RETIRED), 1, None),
        (status(v1=S.PUBLISHED), 1, ExitCode.PUBLISHED),
        (status(v2=failing(S.DISCOVERED, 1), v1=S.PUBLISHED), None, None),
        (status(v2=failing(S.DISCOVERED, 2), v1=S.PUBLISHED), None, ExitCode.PUBLISHED),
        (status(v2=failing(S.FETCHING, 2), v1=S.PUBLISHED), None, ExitCode.PUBLISHED),
        (status(v2=failing(S.FETCHING, 2), v1=S.FETCHING), None, None),
        (
            status(v2=failing(S.DISCOVERED, 0, VersionReason.INSUFFICIENT_DISK), v1=S.PUBLISHED),
            None,
            ExitCode.PUBLISHED,
        ),
        (status(v2=failing(S.DISCOVERED, 1, VersionReason.ACCESS_DENIED)), None, None),
        (status(v2=failing(S.DISCOVERED, 2, VersionReason.ACCESS_DENIED)), 2, ExitCode.REFUSED),
        (
            status(v2=failing(S.FETCHING, 2, VersionReason.ACCESS_DENIED), v1=S.QUARANTINED),
            None,
            ExitCode.REFUSED,
        ),
        (
            status(v2=failing(S.DISCOVERED, 2, VersionReason.ACCESS_DENIED), v1=S.DISCOVERED),
            None,
            None,
        ),
        (
            status(v2=failing(S.INCOMPLETE, 0, VersionReason.ACCESS_DENIED)),
            None,
            ExitCode.REFUSED,
        ),
        (
            status(
                v2=failing(S.DISCOVERED, 2, VersionReason.ACCESS_DENIED),
                v1=failing(S.DISCOVERED, 0, VersionReason.INSUFFICIENT_DISK),
            ),
            None,
            ExitCode.NO_ROOM,
        ),
        # It was deleted from the bucket, and is served.
        (
            status(v2=VersionStatus(version=0, state=S.PUBLISHED), v1=S.DISCOVERED),
            None,
            ExitCode.PUBLISHED,
        ),
        (status(), None, None),
        (status(failed(SourceReason.ACCESS_DENIED)), None, ExitCode.REFUSED),
        (status(failed(SourceReason.BUCKET_NOT_FOUND)), None, ExitCode.REFUSED),
        (status(failed(SourceReason.UNREACHABLE)), None, None),
        # What is there already needs no store.
        (status(failed(SourceReason.ACCESS_DENIED), v3=S.PUBLISHED), 3, ExitCode.PUBLISHED),
    ],
)
def test_it_ends_when_nothing_more_will_come(
    seen: PollerStatus, wanted: int | None, expected: ExitCode | None
) -> None:
    assert outcome(seen, wanted) is expected


def test_the_second_look_into_a_folder_is_waited_for() -> None:
    unstable = failing(S.INCOMPLETE, 0, VersionReason.UNSTABLE_LISTING)
    both = status(v2=unstable, v1=S.PUBLISHED)
    assert outcome(both, None, settling=True) is None
    assert outcome(both, None) is ExitCode.PUBLISHED
    large = status(v2=failing(S.DISCOVERED, 0, VersionReason.INSUFFICIENT_DISK))
    assert outcome(large, None, settling=True) is None
    half = status(v2=failing(S.INCOMPLETE, 0, VersionReason.MISSING_VARIABLES), v1=S.PUBLISHED)
    assert outcome(half, None, settling=True) is ExitCode.PUBLISHED


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (status(failed(SourceReason.UNREACHABLE)), ExitCode.UNREACHABLE),
        (status(), ExitCode.NO_VERSION),
        (status(v1=S.INCOMPLETE), ExitCode.NO_VERSION),
        (status(v1=S.FETCHING), ExitCode.TIMEOUT),
    ],
)
def test_a_timeout_tells_what_was_waited_for(seen: PollerStatus, expected: ExitCode) -> None:
    assert at_timeout(seen, None) is expected


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "model_poller", "--once", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    folder = tmp_path / "bucket"
    folder.mkdir()
    for number in (1, 2):
        for name, content in model().items():
            path = folder / str(number) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return folder


def test_the_newest_version_is_published(bucket: Path, tmp_path: Path) -> None:
    base = tmp_path / "models" / "imagenet"
    ended = run(f"--storage-uri=file://{bucket}", SAVE_DIR=str(base))
    assert ended.returncode == ExitCode.PUBLISHED, ended.stderr
    assert (base / "2" / "saved_model.pb").read_bytes() == model()["saved_model.pb"]
    assert "the newest version: published" in ended.stderr


@pytest.mark.parametrize(("more", "code"), [("", 0), ("--timeout=0", 2)])
def test_a_log_that_takes_no_more_changes_nothing_about_the_end(
    bucket: Path, tmp_path: Path, more: str, code: int
) -> None:
    given = '"$0" -m model_poller --once "$@" 2>/dev/full'
    arguments = [f"--storage-uri=file://{bucket}", *filter(None, [more])]
    ended = subprocess.run(
        ["sh", "-c", given, sys.executable, *arguments],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": ":".join(sys.path),
            "SAVE_DIR": str(tmp_path / "pod" / "imagenet"),
        },
        timeout=60,
        check=False,
    )
    assert ended.returncode == code


def test_a_target_is_published_instead(bucket: Path, tmp_path: Path) -> None:
    base = tmp_path / "models" / "imagenet"
    uri = f"--storage-uri=file://{bucket}"
    ended = run(uri, SAVE_DIR=str(base), TARGET_VERSION="1")
    assert ended.returncode == ExitCode.PUBLISHED, ended.stderr
    assert [entry.name for entry in base.iterdir() if entry.name.isdigit()] == ["1"]


def test_a_folder_is_published_rather_than_an_archive_below_it(
    bucket: Path, tmp_path: Path
) -> None:
    """An archive is whole at once, of a folder that takes a second look."""
    (bucket / "0.zip").write_bytes(zipped(model()))
    os.utime(bucket / "0.zip", (1, 1))
    base = tmp_path / "models" / "imagenet"
    ended = run(f"--storage-uri=file://{bucket}", SAVE_DIR=str(base))
    assert ended.returncode == ExitCode.PUBLISHED, ended.stderr
    assert [entry.name for entry in base.iterdir() if entry.name.isdigit()] == ["2"]


def _half_an_upload(bucket: Path) -> None:
    (bucket / "9").mkdir()
    (bucket / "9" / "saved_model.pb").write_bytes(graph())


def _an_absurd_size(bucket: Path) -> None:
    with (bucket / "9.zip").open("wb") as file:
        file.truncate(1 << 43)


def _a_broken_archive(bucket: Path) -> None:
    (bucket / "9.zip").write_bytes(b"no archive")


def _a_cut_graph(bucket: Path) -> None:
    (bucket / "9.zip").write_bytes(zipped({**model(), "saved_model.pb": graph()[:-9]}))


@pytest.mark.parametrize(
    "spoil", [_half_an_upload, _an_absurd_size, _a_broken_archive, _a_cut_graph]
)
def test_the_newest_that_can_be_had_is_published_beside_one_that_can_not(
    bucket: Path, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(bucket)
    base = tmp_path / "models" / "imagenet"
    ended = run(f"--storage-uri=file://{bucket}", "--timeout=40", SAVE_DIR=str(base))
    assert ended.returncode == ExitCode.PUBLISHED, ended.stderr
    assert [entry.name for entry in base.iterdir() if entry.name.isdigit()] == ["2"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "is empty or isn't there"),
        (b"", "is empty or isn't there"),
        (b"latest", "'latest'"),
        (b"v2", "'v2'"),
        (b"2.0", "'2.0'"),
        (b"\xff", "is no text"),
    ],
)
def test_a_target_file_that_tells_no_version_is_refused(
    bucket: Path,
    tmp_path: Path,
    content: bytes | None,
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = tmp_path / "target"
    if content is not None:
        target.write_bytes(content)
    base = tmp_path / "models" / "imagenet"
    given = ["--once", f"--storage-uri=file://{bucket}", f"--target-file={target}"]
    assert main([*given, f"--models-dir={base.parent}", f"--model-name={base.name}"]) == 2
    (line,) = [s for s in capsys.readouterr().err.splitlines() if s.startswith("model_poller: ")]
    assert str(target) in line
    assert told in line
    assert not list(base.glob("*/saved_model.pb"))


def test_a_broken_version_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket" / "1.zip").write_bytes(zipped({"1/notes.txt": b""}))
    base = tmp_path / "models" / "imagenet"
    ended = run(f"--storage-uri=file://{tmp_path}/bucket", SAVE_DIR=str(base))
    assert ended.returncode == ExitCode.BROKEN
    assert "MissingSavedModel" in ended.stderr


def test_a_version_that_is_forbidden_is_no_success(tmp_path: Path) -> None:
    listed = (
        "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>m/1.zip</Key>"
        "<ETag>&quot;e&quot;</ETag><Size>100</Size></Contents></ListBucketResult>"
    )

    def answer(request: Request) -> Reply:
        is_listing = "list-type=2" in request.target
        return (
            Reply(body=listed)
            if is_listing
            else Reply(403, "<Error><Code>AccessDenied</Code></Error>")
        )

    with Answering(answer) as store:
        ended = run(
            *("--storage-uri=s3://models/m", f"--endpoint={store.url}", "--path-style"),
            SAVE_DIR=str(tmp_path / "models" / "imagenet"),
            AWS_ACCESS_KEY_ID="AKIA1",
            AWS_SECRET_ACCESS_KEY="s",
        )
    assert ended.returncode == ExitCode.REFUSED, ended.stderr
    assert "the access key AKIA1 lacks s3:GetObject on s3://models/m/1.zip" in ended.stderr


def test_a_version_that_is_larger_than_the_volume_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    _an_absurd_size(tmp_path / "bucket")
    base = tmp_path / "models" / "imagenet"
    ended = run(f"--storage-uri=file://{tmp_path}/bucket", SAVE_DIR=str(base))
    assert ended.returncode == ExitCode.NO_ROOM, ended.stderr
    assert f"{2 * (1 << 43) + RESERVE_BYTES} bytes are needed" in ended.stderr


def test_an_empty_source_is_waited_for_until_the_timeout(tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    uri = f"--storage-uri=file://{tmp_path}/bucket"
    ended = run(uri, "--timeout=1", SAVE_DIR=str(tmp_path / "models"))
    assert ended.returncode == ExitCode.NO_VERSION
    assert "no version" in ended.stderr


def test_a_source_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    ended = run(f"--storage-uri=file://{tmp_path}/nowhere", SAVE_DIR=str(tmp_path / "models"))
    assert ended.returncode == ExitCode.REFUSED
    assert "does not exist" in ended.stderr


def test_it_has_to_be_told_where_to_look() -> None:
    with pytest.raises(InvalidSettingsError, match="--once needs --storage-uri"):
        parse(["--once", "p", "s", "/models/m"], {})
