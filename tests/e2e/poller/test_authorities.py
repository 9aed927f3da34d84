"""Stores whose certificates are of an authority of a company's own, each on a real server."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from model_poller.status import VersionState
from tests.support.certificates import Authority
from tests.support.store_servers import Server
from tests.support.stores import AWS_ACCOUNT, AZURE_ACCOUNT, AZURE_KEY, Aws, BlobContainer
from tests.support.tls_relay import relay
from tests.support.waiting import eventually
from tests.unit.poller.doubles import model, zipped
from tests.unit.poller.program import Program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from demo.storage import Storage

pytestmark = pytest.mark.e2e


@pytest.fixture
def company(tmp_path: Path) -> tuple[str, str]:
    """The authority's file, and that of a server that it knows."""
    ours = Authority()
    (tmp_path / "ca.crt").write_text(ours.certificate)
    (tmp_path / "server.pem").write_text(ours.issue("127.0.0.1"))
    return str(tmp_path / "ca.crt"), str(tmp_path / "server.pem")


def brings(folder: Path, company: tuple[str, str], port: int, *arguments: str, **env: str) -> None:
    """A poller that knows the authority brings version 1, and listens to its queue if it has one;
    one that doesn't know it says what is wrong."""
    authority, server = company
    with relay(port, server) as secure:

        def start(name: str, **more: str) -> Program:
            (folder / name).mkdir()
            given = [text.format(endpoint=f"https://127.0.0.1:{secure}") for text in arguments]
            return Program(
                folder / name,
                *(f"--models-dir={folder / name}/models", "--model-name=imagenet"),
                *("--server-address=127.0.0.1:9", "--poll-interval=1"),
                *given,
                **env,
                **more,
            )

        stranger, friend = start("stranger"), start("friend", EXTRA_CA_FILE=authority)
        try:
            friend.wait_for(1, VersionState.PUBLISHED)

            def listens() -> bool:
                heard = friend.status().source.notifications
                return heard is None or heard.connected

            eventually(listens, what="the queue", within=30)
            told = eventually(lambda: stranger.status().source.message, what="words", within=30)
            assert "the certificate of 127.0.0.1 is not trusted" in told
            assert "spec.poller.extraCAs" in told
        finally:
            for program in (stranger, friend):
                program.kill()


def test_google_cloud_storage(storage: Storage, company: tuple[str, str], tmp_path: Path) -> None:
    storage.bucket.upload("imagenet/1.zip", zipped(model()))
    port = int(storage.address.rpartition(":")[2])
    arguments = ("--storage-uri=gs://models/imagenet", "--endpoint={endpoint}", "--anonymous")
    brings(tmp_path, company, port, *arguments)


def test_s3_and_its_notifications(
    aws: Aws, company: tuple[str, str], tmp_path: Path, fresh_name: Callable[[str], str]
) -> None:
    bucket = aws.bucket(fresh_name("models"))
    bucket.upload("imagenet/1.zip", zipped(model()))
    queue = fresh_name("queue")
    aws.queue(queue)
    brings(
        tmp_path,
        company,
        _port(aws.endpoint),
        f"--storage-uri=s3://{bucket.name}/imagenet",
        "--endpoint={endpoint}",
        f"--sqs-queue-url={{endpoint}}/{AWS_ACCOUNT}/{queue}",
        AWS_ACCESS_KEY_ID="id",
        AWS_SECRET_ACCESS_KEY="secret",
    )


def test_azure(
    azurite_url: str, container: BlobContainer, company: tuple[str, str], tmp_path: Path
) -> None:
    container.upload("imagenet/1.zip", zipped(model()))
    brings(
        tmp_path,
        company,
        _port(azurite_url),
        f"--storage-uri=az://{container.name}/imagenet",
        f"--endpoint={{endpoint}}/{AZURE_ACCOUNT}",
        AZURE_STORAGE_ACCOUNT_NAME=AZURE_ACCOUNT,
        AZURE_STORAGE_ACCOUNT_KEY=AZURE_KEY,
    )


def test_a_web_server(tmp_path: Path, company: tuple[str, str]) -> None:
    folder = tmp_path / "www"
    (folder / "imagenet").mkdir(parents=True)
    (folder / "imagenet/1.zip").write_bytes(zipped(model()))
    serve = (sys.executable, "-m", "http.server", "--bind=127.0.0.1", f"--directory={folder}")
    server = Server(tmp_path / "www.log", lambda port: [*serve, str(port)])
    try:
        brings(tmp_path, company, server.port, "--storage-uri={endpoint}/imagenet/")
    finally:
        server.stop()


def _port(url: str) -> int:
    return int(url.split("/")[2].rpartition(":")[2])
