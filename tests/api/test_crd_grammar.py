"""What the CRD takes, all that comes after it takes too: operator, API server and poller."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from inferencemodel_operator.children import children
from inferencemodel_operator.record import VersionsRecord
from inferencemodel_operator.settings import Settings
from inferencemodel_operator.spec import decode
from model_poller import settings
from model_poller.model_server.warmup import locate
from model_poller.notifications.sqs import Queue
from model_poller.stores.credentials import Credentials
from model_poller.stores.opening import open_source
from tests.api.test_crd_validation import TAKEN, changed
from tests.support import crd, kinds
from tests.support.objects import Objects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api
    from inferencemodel_operator.children.manifest import Manifest

pytestmark = pytest.mark.api


@pytest.fixture(scope="module")
def namespace(api_server: Api) -> Iterator[str]:
    with crd.installed(api_server) as name, kinds.installed(api_server):
        yield name


@pytest.mark.parametrize("case", TAKEN)
def test_what_the_crd_takes_is_taken_by_the_operator_the_api_server_and_the_poller(
    api_server: Api, namespace: str, case: str
) -> None:
    objects = Objects(api_server.kubeconfig, namespace)
    created = objects.create("inferencemodels", changed(*TAKEN[case]), dry_run=True)
    model = decode(created)
    wanted = children(model, VersionsRecord(), Settings())
    for child in wanted:
        assert objects.apply(child, dry_run=True)["metadata"]["uid"]
    start_poller(command_line(wanted), uri=model.spec.model.storage_uri)


def command_line(wanted: tuple[Manifest, ...]) -> list[str]:
    """The poller's arguments, as the kubelet hands them on."""
    (deployment,) = (child for child in wanted if child["kind"] == "Deployment")
    (poller,) = deployment["spec"]["template"]["spec"]["initContainers"]
    return [argument.replace("$$", "$") for argument in poller["args"]]


def start_poller(arguments: list[str], *, uri: str) -> None:
    """What a poller makes of its command line before it asks anybody."""
    # As a Secret can name it.
    with patch.object(Path, "is_dir", lambda _: True):  # the folders are those of a pod
        chosen = settings.parse(arguments, {"AZURE_STORAGE_ACCOUNT_NAME": "models"})
    source = open_source(replace(chosen.source, anonymous=True))
    try:
        assert source.uri == uri.rstrip("/")
    finally:
        source.close()
    if chosen.warmup_requests:
        locate(chosen.warmup_requests, chosen.source)
    if chosen.sqs_queue_url:
        Queue(
            chosen.sqs_queue_url,
            credentials=Credentials(),
            region=None,
            on_object=lambda bucket, name: None,
            on_connect=lambda: None,
            report=lambda status: None,
        )
