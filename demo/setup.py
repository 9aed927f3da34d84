"""Brings a cluster to where the project is installed on it, for the demo and the benchmarks."""

from __future__ import annotations

import contextlib
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from demo.bucket import Bucket
from demo.cluster import (
    IMAGES,
    MANIFESTS,
    VERSION,
    Cluster,
    devcluster,
    exported,
    kubectl_program,
    reachable,
    registry_overlay,
)
from demo.console import say
from demo.errors import ClusterError

BUCKET = "models"
_BUCKET_PORT = 30443
"""The NodePort of the development bucket."""
_NODE_PORT_SECONDS = 60.0

_INSTALLED = (
    ("inferencemodel-system", "inferencemodel-operator"),
    ("development-bucket", "bucket"),
    ("development-bucket", "pubsub"),
)


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Attributes:
        rate: requests a second through the Ingress, and as many by gRPC.
        ingress: ``host:port`` of the ingress controller.
        node: an address on which NodePorts answer.
        registry: has the images, on a cluster that is not the embedded one; None where its
            nodes have them already.
    """

    rate: float = 20.0
    ingress: str = "127.0.0.1:80"
    node: str = "127.0.0.1"
    registry: str | None = None


def cluster(options: Options) -> Cluster:
    """The cluster that is running: KUBECONFIG's, or the embedded one.

    Raises:
        ClusterError: there is none.
    """
    kubeconfig = exported() or Path(devcluster("kubeconfig", capture=True))
    return Cluster(kubeconfig, kubectl_program(), options.ingress, options.node)


def prepare(options: Options) -> Cluster:
    """A cluster with everything installed, whatever is there already.

    Raises:
        ClusterError: a step failed.
    """
    if exported() is None:
        devcluster("up", capture=True)
    ready = cluster(options)
    images(options)
    install(ready, options)
    return ready


def bucket(cluster: Cluster) -> Bucket:
    """The development bucket, for uploads from here."""
    return Bucket(f"{cluster.node}:{_BUCKET_PORT}", BUCKET)


def images(options: Options) -> None:
    """Have the images on the embedded node, or say which ones a cluster must have.

    Raises:
        ClusterError: one could not be built or loaded.
    """
    if exported() is None:
        devcluster("load-image", *IMAGES, capture=True)
        return
    named = options.registry or "inferencemodel"
    say("The cluster's nodes must be able to pull, or have, these images:")
    for image in IMAGES:
        say(f"  {named}/{image}:{VERSION}")
    say("Each Dockerfile in images/ says how to build its own; --registry names where they are.")


def install(cluster: Cluster, options: Options) -> None:
    """Install the operator and the development bucket, and wait until they run.

    Raises:
        ClusterError: something could not be applied, or does not start.
    """
    with contextlib.ExitStack() as stack:
        overlay = MANIFESTS
        if options.registry:
            scratch = stack.enter_context(tempfile.TemporaryDirectory())
            overlay = str(registry_overlay(options.registry, Path(scratch)))
        namespace, operator = _INSTALLED[0]
        there = cluster.kubectl(
            f"--namespace={namespace}", "get", "deployment", operator, "--ignore-not-found"
        )
        cluster.kubectl("apply", "-k", overlay, show=True)
        if there:
            # The tag is the same, but the image may be a newer build.
            cluster.kubectl(
                f"--namespace={namespace}", "rollout", "restart", f"deployment/{operator}"
            )
    for namespace, deployment in _INSTALLED:
        cluster.kubectl(
            *(f"--namespace={namespace}", "rollout", "status", f"deployment/{deployment}"),
            "--timeout=180s",
            timeout=200,
        )
        say(f"{deployment} is running in {namespace}")
    _until_reachable(cluster)


def _until_reachable(cluster: Cluster) -> None:
    """Wait for the bucket's NodePort, which kube-proxy opens a moment after its pod is ready."""
    end = time.monotonic() + _NODE_PORT_SECONDS
    while not reachable(cluster.node, _BUCKET_PORT):
        if time.monotonic() > end:
            raise ClusterError(
                f"the bucket's NodePort {_BUCKET_PORT} does not answer at {cluster.node}; name an"
                " address of a node with --node"
            )
        time.sleep(0.2)
