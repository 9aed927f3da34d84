"""The embedded cluster comes up, is repaired, and leaves the machine as it was.

These run before anything else uses the cluster, and only where none is up: they take it down.
"""

from __future__ import annotations

import os
import shutil
import signal
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

from devcluster import (
    Cluster,
    DevclusterError,
    KubectlError,
    UsageError,
    cgroups,
    mounts,
    network,
    paths,
    recipes,
)
from devcluster.machine import shims
from devcluster.packages import require_linux_root
from tests.support.machine import machine, run
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devcluster import Api

pytestmark = pytest.mark.e2e

#: The sandbox image does nothing but wait, so it makes a pod with volumes, ports and a network.
POD = """
apiVersion: v1
kind: Pod
metadata: {{name: left-alone}}
spec:
  containers:
    - name: pause
      image: {image}
      ports: [{{containerPort: 80, hostPort: 18080, hostIP: 127.0.0.1}}]
      volumeMounts: [{{name: scratch, mountPath: /scratch}}]
  volumes:
    - name: scratch
      emptyDir: {{medium: Memory}}
"""


@pytest.fixture(scope="module", autouse=True)
def embedded() -> Iterator[Cluster]:
    if os.environ.get("KUBECONFIG"):
        pytest.skip("the tests run on the cluster of KUBECONFIG")
    if Cluster().exists():
        pytest.skip("a cluster is up, and taking it down is not for a test")
    require_linux_root()
    cluster = Cluster()
    yield cluster
    cluster.down()


def pod_runs(api: Api) -> bool:
    return api.kubectl("get", "pod", "left-alone", "-o=jsonpath={.status.phase}") == "Running"


def start_pod(cluster: Cluster, api: Api) -> None:
    name = next(name for name in cluster.images().names() if "/pause:" in name)
    eventually(
        lambda: api.kubectl("get", "serviceaccounts", "-o=name"),
        what="the service account that every pod has",
    )
    api.kubectl("apply", "-f", "-", stdin=POD.format(image=name))
    eventually(lambda: pod_runs(api), what="the pod to run", within=120)


def test_down_leaves_the_machine_as_it_was_with_pods_running_and_programs_killed(
    embedded: Cluster,
) -> None:
    before = machine()
    api = embedded.up()
    start_pod(embedded, api)
    assert machine() != before
    for name in ("kubelet", "kube-apiserver"):
        identity = embedded.processes.identity(name)
        assert identity is not None
        identity.signal(signal.SIGKILL)
    embedded.down()
    assert machine() == before


def test_up_repairs_what_died_and_leaves_the_rest_alone(embedded: Cluster) -> None:
    api = embedded.up()
    start_pod(embedded, api)
    before = embedded.status().programs
    for name in ("etcd", "kube-apiserver", "containerd", "kubelet"):
        identity = embedded.processes.identity(name)
        assert identity is not None
        identity.signal(signal.SIGKILL)
    eventually(lambda: not embedded.status().running, what="the programs to end")
    api = embedded.up()
    status = embedded.status()
    assert status.running
    assert status.node_ready
    assert status.programs["kube-scheduler"] == before["kube-scheduler"]
    assert pod_runs(api)


def reboot(cluster: Cluster) -> None:
    """Takes away all that a reboot takes, and makes the records those of an earlier boot."""
    for name in cluster.processes.names():
        identity = cluster.processes.identity(name)
        assert identity is not None
        identity.signal(signal.SIGKILL)
        record = cluster.processes.records / f"{name}.json"
        record.write_text(record.read_text().replace(identity.boot, "an earlier boot"))
    cgroups.kill()
    for identity in shims(paths.RUN / "containerd.sock"):
        identity.signal(signal.SIGKILL)
    mounts.unmount_below(paths.RUN, paths.STATE)
    cgroups.remove(paths.STATE / "controllers.json")
    shutil.rmtree(paths.RUN)
    run("ip", "link", "delete", network.BRIDGE)


def test_up_after_a_reboot_goes_on_where_the_cluster_was(embedded: Cluster) -> None:
    api = embedded.up()
    start_pod(embedded, api)
    reboot(embedded)
    api = embedded.up()
    eventually(lambda: pod_runs(api), what="the pod to run again")
    with pytest.raises(urllib.error.HTTPError, match="404") as refused:
        urllib.request.urlopen(f"http://{api.ingress}/", timeout=10)
    refused.value.close()


def test_up_on_a_whole_cluster_restarts_nothing(embedded: Cluster) -> None:
    embedded.up()
    before = embedded.status()
    embedded.up()
    assert embedded.status() == before


def test_reset_makes_a_clean_api_and_keeps_the_images(embedded: Cluster) -> None:
    embedded.up().kubectl("create", "namespace", "left-over")
    images = embedded.images().names()
    api = embedded.reset()
    assert "left-over" not in api.kubectl("get", "namespaces", "-o=name")
    assert embedded.images().names() == images


def test_node_and_pods_tell_their_usage(embedded: Cluster) -> None:
    api = embedded.up()

    def measured() -> str:
        try:
            return api.kubectl("top", "pods", "--all-namespaces", "--no-headers")
        except KubectlError:
            return ""

    usage = eventually(measured, what="the metrics server to have measured", within=120)
    assert "coredns" in usage


def test_load_image_refuses_what_is_no_image(embedded: Cluster, tmp_path: Path) -> None:
    embedded.up()
    broken = tmp_path / "broken.tar"
    broken.write_text("no archive")
    with pytest.raises(DevclusterError, match=r"broken\.tar"):
        recipes.load(str(broken), embedded.images())
    with pytest.raises(UsageError, match="neither an archive, nor one of"):
        recipes.load("no/such/image:1", embedded.images())
