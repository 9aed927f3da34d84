"""Both programs of a pod understand the command line that the operator gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from development_model_server import flags
from inferencemodel_operator import names
from inferencemodel_operator.children import model_server, poller
from inferencemodel_operator.children.leaving import leaving
from inferencemodel_operator.spec import InferenceModel, decode
from tests.support import crd

FULL: dict[str, Any] = {
    "model": {"name": "ResNet", "storageUri": "gs://models/a$b/", "numVersions": 2},
    "source": {
        "endpoint": "http://bucket:4443",
        "anonymous": True,
        "pollInterval": "1m30s",
        "notifications": {
            "pubsub": {"subscription": "projects/p/subscriptions/sub", "endpoint": "pubsub:8085"}
        },
    },
    "server": {
        "args": ["--rest_api_timeout_in_ms=1000", "--enable_model_warmup"],
        "resources": {"limits": {"cpu": "1500m"}},
        "batching": {"maxBatchSize": 8},
    },
}


def models() -> list[InferenceModel]:
    manifests = [
        manifest
        for path in sorted(crd.EXAMPLES.glob("*.yaml"))
        for manifest in yaml.safe_load_all(path.read_text())
        if manifest["kind"] == names.KIND
    ]
    given = [{"metadata": {"name": "full"}, "spec": FULL}, *manifests]
    return [
        decode({**one, "metadata": {"namespace": "vision", **one["metadata"]}}) for one in given
    ]


MODELS = models()


@pytest.mark.filterwarnings("ignore:Please install grpcio-status:ImportWarning")
@pytest.mark.parametrize("model", MODELS, ids=[model.name for model in MODELS])
def test_the_poller_reads_what_the_spec_says(
    model: InferenceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model_poller import settings  # the Google packages warn while they are imported

    monkeypatch.setattr(Path, "is_dir", lambda _: True)  # the folders are those of a pod
    given = [argument.replace("$$", "$") for argument in poller.arguments(model)]
    read = settings.parse(given, {"TARGET_VERSION": "15"})
    source, versions = model.spec.source, model.spec.model
    assert read.model == model.model_name
    assert read.base == Path("/models", model.model_name)
    assert [place.uri for place in read.source.locations] == [versions.storage_uri.rstrip("/")]
    assert read.poll_interval == float(source.poll_interval)
    assert (read.source.endpoint, read.source.anonymous) == (source.endpoint, source.anonymous)
    assert (read.policy.num_versions, read.policy.retain_versions) == (
        versions.num_versions,
        versions.retain_versions,
    )
    probe = model_server.container(model)["startupProbe"]
    assert read.policy.load_timeout == probe["periodSeconds"] * probe["failureThreshold"]
    pubsub = source.notifications.pubsub if source.notifications else None
    assert read.subscription == (pubsub.subscription if pubsub else None)
    assert read.pubsub_endpoint == (pubsub.endpoint if pubsub else None)
    sqs = source.notifications.sqs if source.notifications else None
    assert read.sqs_queue_url == (sqs.queue_url if sqs else None)
    assert read.source.region == source.region
    assert read.source.azure_account == (source.azure.account if source.azure else None)
    assert read.source.mount == (Path("/mnt/model-source") if versions.claim else None)
    assert read.source.credentials.folder == (
        Path("/etc/model-source") if source.secret_ref else None
    )
    assert read.fetch.parallelism == source.fetch.parallelism
    limit = source.fetch.max_bandwidth
    assert read.fetch.bandwidth == (float(limit.value) if limit else None)
    cache = model.spec.storage.cache
    assert (read.cache and read.cache.folder) == (Path("/mnt/model-cache") if cache else None)
    assert read.complete_marker == versions.completion.marker
    assert read.manifest_public_key == versions.completion.public_key
    assert read.require_manifest == (
        versions.completion.manifest == "Required" or bool(versions.completion.public_key)
    )
    assert bool(read.warmup_requests) == (versions.warmup is not None)
    assert read.http_port == names.POLLER_PORT
    assert bool(read.batching_parameters) == (model.spec.server.batching is not None)
    assert not read.policy.follow_newest


@pytest.mark.parametrize("model", MODELS, ids=[model.name for model in MODELS])
def test_the_model_server_knows_every_flag_and_takes_every_value(model: InferenceModel) -> None:
    read = flags.parse(model_server.arguments(model.spec.server, leaving(model.spec.drain.seconds)))
    assert read.usable
    assert read.unknown == ()
    assert read.options.port == names.GRPC_PORT
    assert read.options.rest_api_port == names.HTTP_PORT
    assert read.options.enable_batching == (model.spec.server.batching is not None)
    assert bool(read.options.batching_parameters_file) == read.options.enable_batching
