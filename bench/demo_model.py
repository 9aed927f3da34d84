"""The demo's model, served from the beginning, for measurements under requests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demo import artifacts, setup
from demo.console import say
from demo.served import NAME, Served
from demo.setup import Options

if TYPE_CHECKING:
    from demo.artifacts import Artifacts
    from demo.bucket import Bucket
    from demo.photo import Prediction

REPLICAS = 3


@dataclass(frozen=True)
class DemoModel:
    """Version 1 of it, on three replicas.

    Attributes:
        served: the resource.
        bucket: where versions are uploaded to.
        made: the archives of versions.
        image: what requests are made of.
        first: the answer of version 1 to it.
    """

    served: Served
    bucket: Bucket
    made: Artifacts
    image: bytes
    first: Prediction

    def upload(self, version: int, archive: bytes) -> None:
        """Put a version into the bucket, and wait until all replicas answer with it."""
        self.bucket.upload(f"{NAME}/{version:04}.zip", archive)
        self.served.wait_for_version(version, replicas=REPLICAS)


def begin(rate: float, rollout: dict[str, Any] | None = None) -> DemoModel:
    """Serve version 1 and nothing else, with this ``spec.rollout``.

    Raises:
        ClusterError: a part does not run.
    """
    cluster = setup.prepare(Options(rate=rate))
    made = artifacts.ensure(say)
    image = made.photo.read_bytes()
    served, bucket = Served(cluster), setup.bucket(cluster)
    served.remove()
    bucket.clear(f"{NAME}/")
    bucket.upload(f"{NAME}/0001.zip", made.archive(1).read_bytes())
    served.apply()
    if rollout:
        patch(served, {"rollout": rollout})
    served.wait_for_version(1, replicas=REPLICAS)
    return DemoModel(served, bucket, made, image, served.first_answer(image))


def patch(served: Served, spec: dict[str, object]) -> None:
    """Change the resource."""
    text = json.dumps({"spec": spec})
    served.kubectl("patch", "inferencemodel", NAME, "--type=merge", "--patch", text)
