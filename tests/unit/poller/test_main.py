"""The program as it is started: settings in, versions on disk, SIGTERM ends it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from model_poller.status import VersionReason, VersionState
from tests.support.waiting import eventually
from tests.unit.poller.doubles import below, model, zipped
from tests.unit.poller.gcs_server import GcsServer
from tests.unit.poller.program import Program

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def bucket() -> Iterator[GcsServer]:
    with GcsServer() as running:
        yield running


@pytest.fixture
def start(tmp_path: Path) -> Iterator[list[Program]]:
    programs: list[Program] = []
    yield programs
    for program in programs:
        program.kill()


def test_a_pod_is_fed_from_start_to_sigterm(
    tmp_path: Path, bucket: GcsServer, start: list[Program]
) -> None:
    bucket.put("imagenet/0001.zip", zipped(below("0001", model())))
    target = tmp_path / "target"
    models = tmp_path / "models"
    program = Program(
        tmp_path,
        "--model-name=imagenet",
        "--storage-uri=gs://models/imagenet",
        f"--endpoint={bucket.url}",
        "--anonymous",
        f"--models-dir={models}",
        f"--server-config-dir={models}/.server",
        "--server-address=127.0.0.1:9",
        f"--target-file={target}",
        "--log-format=json",
    )
    start.append(program)
    program.wait_for(1, VersionState.FETCHED)
    assert (models / ".server/models.config").exists()
    target.write_text("1")
    status = program.wait_for(1, VersionState.PUBLISHED)
    assert status.target == 1
    assert (models / "imagenet/1/saved_model.pb").exists()
    assert program.end() == 0
    lines = [json.loads(line) for line in program.log.read_text().splitlines()]
    assert {"time", "level", "logger", "message"} <= lines[0].keys()
    assert lines[-1]["message"] == "SIGTERM: ending"


def test_alone_it_needs_only_the_environment(
    tmp_path: Path, bucket: GcsServer, start: list[Program]
) -> None:
    bucket.put("0001.zip", zipped(model()))
    program = Program(
        tmp_path,
        "--storage-uri=gs://models",
        f"--endpoint={bucket.url}",
        "--anonymous",
        PROJECT_ID="p",
        SUBSCRIPTION="s",
        SAVE_DIR=str(tmp_path / "resnet"),
        PUBSUB_EMULATOR_HOST="127.0.0.1:9",
    )
    start.append(program)
    program.wait_for(1, VersionState.PUBLISHED)
    assert (tmp_path / "resnet/1/saved_model.pb").exists()
    status = program.status()
    assert status.source.notifications is not None
    assert not status.source.notifications.connected
    assert program.end() == 0


def test_a_killed_poller_goes_on_where_it_was(
    tmp_path: Path, bucket: GcsServer, start: list[Program]
) -> None:
    bucket.put("0001.zip", zipped(model()))
    arguments = [
        "--storage-uri=gs://models",
        f"--endpoint={bucket.url}",
        "--anonymous",
        f"--models-dir={tmp_path}/models",
        "--model-name=m",
    ]
    first = Program(tmp_path, *arguments)
    start.append(first)
    first.wait_for(1, VersionState.PUBLISHED)
    first.process.kill()
    first.process.wait()
    reads = bucket.calls.count("get")
    second = Program(tmp_path, *arguments)
    start.append(second)
    second.wait_for(1, VersionState.PUBLISHED)
    assert bucket.calls.count("get") == reads
    assert second.end() == 0


def test_a_target_of_the_environment_alone_is_served(
    tmp_path: Path, bucket: GcsServer, start: list[Program]
) -> None:
    bucket.put("1.zip", zipped(model()))
    bucket.put("2.zip", zipped(model()))
    program = Program(
        tmp_path,
        "--storage-uri=gs://models",
        f"--endpoint={bucket.url}",
        "--anonymous",
        f"--models-dir={tmp_path}/models",
        "--model-name=m",
        TARGET_VERSION="1",
    )
    start.append(program)
    program.wait_for(1, VersionState.PUBLISHED)
    status = program.wait_for(2, VersionState.FETCHED)
    assert status.target == 1
    assert program.end() == 0


def test_what_the_environment_says_failed_elsewhere_is_not_fetched_without_a_target_either(
    tmp_path: Path, bucket: GcsServer, start: list[Program]
) -> None:
    bucket.put("1.zip", zipped(model()))
    bucket.put("2.zip", zipped(model()))

    def run(name: str, **environment: str) -> Program:
        (tmp_path / name).mkdir()
        program = Program(
            tmp_path / name,
            "--storage-uri=gs://models",
            f"--endpoint={bucket.url}",
            "--anonymous",
            f"--models-dir={tmp_path / name}/models",
            "--model-name=m",
            **environment,
        )
        start.append(program)
        return program

    first = run("first").wait_for(2, VersionState.PUBLISHED)
    failed = f"2@{first.versions[0].fingerprint}"
    status = run("second", QUARANTINED_VERSIONS=failed).wait_for(1, VersionState.PUBLISHED)
    told = {version.version: version.reason for version in status.versions}
    assert told[2] is VersionReason.QUARANTINED_ELSEWHERE


def test_two_pollers_do_not_work_on_one_volume(
    tmp_path: Path, bucket: GcsServer, start: list[Program]
) -> None:
    bucket.put("1.zip", zipped(model()))
    arguments = [
        "--storage-uri=gs://models",
        f"--endpoint={bucket.url}",
        "--anonymous",
        f"--models-dir={tmp_path}/models",
        "--model-name=m",
    ]
    first = Program(tmp_path, *arguments)
    start.append(first)
    first.wait_for(1, VersionState.PUBLISHED)
    (tmp_path / "second").mkdir()
    second = Program(tmp_path / "second", *arguments)
    start.append(second)
    assert second.process.wait(30) == 2
    assert "another poller works on" in second.log.read_text()
    assert first.status().versions[0].state is VersionState.PUBLISHED


def test_a_file_whose_name_is_no_unicode_spoils_its_own_version_alone(
    tmp_path: Path, start: list[Program]
) -> None:
    bucket = tmp_path / "bucket"
    write(bucket / "1", model())
    write(bucket / "2", model())
    Path(os.fsdecode(bytes(bucket / "2" / "assets") + b"\xff")).write_bytes(b"x")
    program = Program(
        tmp_path,
        f"--storage-uri=file://{bucket}",
        f"--models-dir={tmp_path}/models",
        "--model-name=m",
        "--poll-interval=0.2",
    )
    start.append(program)
    refused = program.wait_for(2, VersionState.QUARANTINED)
    assert "is not valid Unicode" in refused.versions[0].message
    program.wait_for(1, VersionState.PUBLISHED)
    assert "Traceback" not in program.log.read_text()
    assert program.end() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "SAVE_DIR is missing"),
        (["--models-dir=/dev/null/x", "--model-name=m", "--storage-uri=gs://models"], "volume"),
    ],
)
def test_what_can_not_work_ends_at_once_with_one_line(
    tmp_path: Path, start: list[Program], arguments: list[str], message: str
) -> None:
    program = Program(tmp_path, "--anonymous", *arguments)
    start.append(program)
    assert program.process.wait(30) == 2
    (line,) = program.log.read_text().splitlines()
    assert line.startswith("model_poller: ")
    assert message in line


def test_no_secret_of_a_key_file_is_logged(
    tmp_path: Path, bucket: GcsServer, start: list[Program]
) -> None:
    key = tmp_path / "key.json"
    key.write_text(
        json.dumps(
            {
                "type": "service_account",
                "client_email": "poller@p.iam.gserviceaccount.com",
                "token_uri": "http://127.0.0.1:9/token",
                "private_key": _throwaway_key(),
                "private_key_id": "id",
            }
        )
    )
    program = Program(
        tmp_path,
        "--storage-uri=gs://models",
        f"--endpoint={bucket.url}",
        f"--models-dir={tmp_path}/models",
        "--model-name=m",
        GOOGLE_APPLICATION_CREDENTIALS=str(key),
    )
    start.append(program)
    eventually(
        lambda: program.status().source.message != "",
        what="the first look to fail",
        within=60,
        every=0.1,
    )
    assert program.end() == 0
    text = program.log.read_text() + repr(program)
    assert "PRIVATE KEY" not in text
    assert json.loads(key.read_text())["private_key"].splitlines()[1] not in text


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _throwaway_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return made.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    ).decode()
