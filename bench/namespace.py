"""A namespace with InferenceModels of the benchmark's own, gone when it ends."""

from __future__ import annotations

import json
import urllib.parse
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demo.cluster import VERSION
from demo.errors import ClusterError, OutcomeError
from demo.setup import BUCKET

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from demo.bucket import Bucket
    from demo.cluster import Cluster

NAME = "bench"


@dataclass(frozen=True)
class Namespace:
    """Where a benchmark's resources live, and the folder of the bucket with their versions."""

    cluster: Cluster
    bucket: Bucket

    def kubectl(self, *arguments: str, timeout: float = 120.0) -> str:
        """kubectl in this namespace."""
        return self.cluster.kubectl(f"--namespace={NAME}", *arguments, timeout=timeout)

    def path(self, model: str, version: int) -> str:
        """An archive's place in the bucket."""
        return f"{NAME}/{model}/{version:04}.zip"

    def url(self, model: str, version: int) -> str:
        """Where the archive is downloaded from."""
        path = urllib.parse.quote(self.path(model, version), safe="")
        return f"http://{self.bucket.address}/download/storage/v1/b/{BUCKET}/o/{path}"

    def apply(self, model: str, *, subscription: str, poll_interval: str, replicas: int) -> None:
        """Create an InferenceModel on the development bucket."""
        spec: dict[str, Any] = {
            "model": {"storageUri": f"gs://{BUCKET}/{NAME}/{model}"},
            "source": {
                "endpoint": "http://bucket.development-bucket:4443",
                "anonymous": True,
                "pollInterval": poll_interval,
                "notifications": {
                    "pubsub": {
                        "subscription": f"projects/development/subscriptions/{subscription}",
                        "endpoint": "pubsub.development-bucket:8085",
                    }
                },
            },
            "server": {
                "image": f"inferencemodel/development-model-server:{VERSION}",
                "resources": {"requests": {"cpu": "50m", "memory": "512Mi"}},
            },
            "replicas": replicas,
        }
        self.create(model, spec)

    def create(self, model: str, spec: dict[str, Any]) -> None:
        """Create an InferenceModel with a spec of the caller's."""
        manifest = {
            "apiVersion": "inferencemodel.dev/v1alpha1",
            "kind": "InferenceModel",
            "metadata": {"name": model, "namespace": NAME},
            "spec": spec,
        }
        self.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))

    def wait(self, model: str, version: int, *, seconds: float = 180.0) -> None:
        """Wait until the resource says that a version answers on all its replicas.

        Raises:
            OutcomeError: the deadline passed; tells what the resource says instead.
        """
        try:
            self.kubectl(
                *("wait", f"inferencemodel/{model}", f"--timeout={seconds:.0f}s"),
                f"--for=jsonpath={{.status.model.activeVersion}}={version}",
                timeout=seconds + 30,
            )
        except ClusterError as error:
            conditions = self.kubectl(
                *("get", "inferencemodel", model),
                '--output=jsonpath={range .status.conditions[*]}{.type}: {.message}{"\n"}{end}',
            )
            raise OutcomeError(f"{error}\n{conditions}") from error

    def addresses(self, model: str) -> list[str]:
        """``host:port`` of the gRPC of each replica."""
        selector = f"inferencemodel.dev/name={model}"
        pods = self.kubectl(
            *("get", "pods", f"--selector={selector}"),
            "--output=jsonpath={.items[*].status.podIP}",
        )
        return [f"{address}:8500" for address in pods.split()]


@contextmanager
def namespace(cluster: Cluster, bucket: Bucket) -> Iterator[Namespace]:
    """An empty namespace and an empty folder in the bucket, both cleared away at the end."""
    made = Namespace(cluster, bucket)
    _clear(made)
    cluster.kubectl("create", "namespace", NAME)
    try:
        yield made
    finally:
        _clear(made)


def _clear(made: Namespace) -> None:
    made.bucket.clear(f"{NAME}/")
    made.cluster.kubectl("delete", "namespace", NAME, "--ignore-not-found", timeout=180)


def renumbered(archive: Path, version: int, directory: Path) -> Path:
    """The same model as another version: an archive whose folder has that number."""
    made = directory / f"{version:04}.zip"
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(f"{version:04}/{name.partition('/')[2]}", old.read(name))
    return made
