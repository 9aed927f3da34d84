"""Three nodes: they reach each other, fail one by one, recover, and leave the machine as it was.

In the order in which they are written: each test leaves three nodes that are Ready.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devcluster import Cluster, Settings, build, cgroups, network, paths, topology
from devcluster.addons import program_image
from devcluster.controllers import LOST_SECONDS
from devcluster.images import write_program_image
from devcluster.packages import require_linux_root
from tests.support.machine import machine
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster import Api

pytestmark = pytest.mark.e2e

NODES = topology.several(3, paths.STATE, paths.RUN)
#: A node that fell silent is known to be lost after this, and a little for the controller to look.
LOST_WITHIN = LOST_SECONDS + 30.0
#: DNS servers tell by HTTP that they are well, and their image is on every node.
PODS = """
apiVersion: v1
kind: ConfigMap
metadata: {{name: asked}}
data:
  Corefile: ".:5353 {{\\n  health :8080\\n  whoami\\n}}\\n"
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: asked}}
spec:
  replicas: 3
  selector: {{matchLabels: {{app: asked}}}}
  template:
    metadata: {{labels: {{app: asked}}}}
    spec:
      terminationGracePeriodSeconds: 0
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: DoNotSchedule
          labelSelector: {{matchLabels: {{app: asked}}}}
      containers:
        - name: asked
          image: {image}
          imagePullPolicy: Never
          args: [-conf, /configuration/Corefile]
          readinessProbe: {{httpGet: {{path: /health, port: 8080}}, periodSeconds: 1}}
          volumeMounts:
            - {{name: configuration, mountPath: /configuration}}
            - {{name: scratch, mountPath: /scratch}}
      volumes:
        - name: configuration
          configMap: {{name: asked}}
        - name: scratch
          emptyDir: {{}}
---
apiVersion: v1
kind: Service
metadata: {{name: asked}}
spec:
  clusterIP: 10.96.7.7
  selector: {{app: asked}}
  ports: [{{port: 80, targetPort: 8080}}]
"""
#: Prints how often each address answered, of several tries each.
ASK = """
import socket, sys
for target in sys.argv[2:]:
    host, _, port = target.partition(":")
    answered = 0
    for _ in range(int(sys.argv[1])):
        try:
            with socket.create_connection((host, int(port)), timeout=3) as connection:
                connection.settimeout(3)
                connection.sendall(b"GET /health HTTP/1.0\\r\\n\\r\\n")
                answered += b" 200 " in connection.recv(100)
        except OSError:
            pass
    print(answered)
"""


@pytest.fixture(scope="module")
def before() -> dict[str, object]:
    if os.environ.get("KUBECONFIG"):
        pytest.skip("the tests run on the cluster of KUBECONFIG")
    if Cluster().exists():
        pytest.skip("a cluster is up, and taking it down is not for a test")
    require_linux_root()
    return machine()


@pytest.fixture(scope="module")
def cluster(before: dict[str, object]) -> Iterator[Cluster]:
    embedded = Cluster()
    began = time.monotonic()
    embedded.up(Settings(nodes=3))
    print(f"three nodes after {time.monotonic() - began:.0f} s")
    try:
        yield embedded
    finally:
        embedded.down()


@pytest.fixture(scope="module")
def api(cluster: Cluster) -> Api:
    api = cluster.api()
    image = program_image(build.ensure(["coredns"])["coredns"])
    eventually(
        lambda: api.kubectl("get", "serviceaccounts", "-o=name"),
        what="the service account that every pod has",
    )
    api.kubectl("apply", "-f", "-", stdin=PODS.format(image=image))
    eventually(lambda: len(pods(api)) == 3, what="three pods to be ready", within=120)
    return api


def pods(api: Api) -> dict[str, str]:
    """The addresses of the pods that are ready, by the names of their nodes."""
    listed = json.loads(api.kubectl("get", "pods", "--selector=app=asked", "-o=json"))
    return {
        pod["spec"]["nodeName"]: pod["status"]["podIP"]
        for pod in listed["items"]
        if condition(pod, "Ready") == "True" and "deletionTimestamp" not in pod["metadata"]
    }


def condition(something: dict[str, Any], kind: str) -> str:
    conditions = something["status"].get("conditions", [])
    return next((each["status"] for each in conditions if each["type"] == kind), "")


def node_is(api: Api, node: topology.Node, kind: str, *statuses: str) -> bool:
    shown = json.loads(api.kubectl("get", "node", node.name, "-o=json"))
    return condition(shown, kind) in statuses


def processes(node: topology.Node) -> list[int]:
    """What runs in a node's pods."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            inside = f"{node.control_group}/" in path.read_text()
        except OSError:
            continue
        if inside:
            found.append(int(path.parent.name))
    return found


def pod_of(node: topology.Node) -> Path:
    """The network namespace of a node's pod of the Deployment."""
    for pid in processes(node):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"/configuration/Corefile" in line:
            return Path(f"/proc/{pid}/ns/net")
    raise AssertionError(f"no pod runs on {node.name}")


def ask(namespace: Path | None, *targets: str, tries: int = 1) -> list[int]:
    """How many of the tries each target answers, as seen from a network namespace."""
    within = ["nsenter", f"--net={namespace}", "--"] if namespace else []
    done = subprocess.run(
        [*within, sys.executable, "-c", ASK, str(tries), *targets],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return [int(line) for line in done.stdout.split()]


def everyone_answers(api: Api) -> bool:
    """From every pod, every node and the machine to every pod, and by the Service."""
    addresses = pods(api)
    assert set(addresses) == {node.name for node in NODES}
    targets = [*(f"{address}:8080" for address in addresses.values()), "10.96.7.7:80"]
    places = [None, *(pod_of(node) for node in NODES), *(node.namespace for node in NODES)]
    for place in places:
        assert ask(place, *targets, tries=6) == [6] * len(targets), place
    return True


def all_ready(api: Api) -> bool:
    return all(node_is(api, node, "Ready", "True") for node in NODES)


def test_every_pod_reaches_every_other_one_directly_and_by_a_service(api: Api) -> None:
    eventually(lambda: everyone_answers(api), what="all to reach all")


def test_nodes_have_names_zones_and_addresses_of_their_own(api: Api) -> None:
    listed = json.loads(api.kubectl("get", "nodes", "-o=json"))["items"]
    found = {
        node["metadata"]["name"]: (
            node["metadata"]["labels"]["topology.kubernetes.io/zone"],
            next(a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP"),
        )
        for node in listed
    }
    assert found == {node.name: (node.zone, node.address) for node in NODES}


def test_names_are_answered_and_the_ingress_is_reached_from_everywhere(api: Api) -> None:
    for place in (None, pod_of(NODES[0]), NODES[1].namespace):
        script = "import socket, sys; socket.create_connection((sys.argv[1], sys.argv[2]), 5)"
        within = ["nsenter", f"--net={place}", "--"] if place else []
        for host, port in (("10.96.0.10", "53"), tuple(api.ingress.split(":"))):
            subprocess.run([*within, sys.executable, "-c", script, host, port], check=True)


def test_images_take_room_once(cluster: Cluster) -> None:
    used = [
        sum(path.lstat().st_blocks * 512 for path in node.images.rglob("*") if path.is_file())
        for node in NODES
    ]
    shared = sum(
        path.lstat().st_blocks * 512
        for path in (paths.cache() / "containerd").rglob("*")
        if path.is_file()
    )
    print(f"images: {shared / 1e6:.0f} MB once, and {max(used) / 1e6:.0f} MB on a node at most")
    # The metadata of images, and what its pods have written.
    assert max(used) < 64e6


WAITING = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: waiting}
spec:
  selector: {matchLabels: {app: waiting}}
  template:
    metadata: {labels: {app: waiting}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - {name: waiting, image: "example/replaced:1", imagePullPolicy: Never, command: [/pause]}
"""


def broken_links(node: topology.Node) -> list[Path]:
    links = [
        *node.images.glob("io.containerd.snapshotter.v1.overlayfs/snapshots/*/fs"),
        *node.images.glob("io.containerd.content.v1.content/blobs/sha256/*"),
    ]
    assert any(link.is_symlink() for link in links)
    return [link for link in links if link.is_symlink() and not link.exists()]


def test_an_image_is_on_every_node_and_stays_for_those_that_run_it_when_it_is_replaced(
    cluster: Cluster, api: Api, tmp_path: Path
) -> None:
    images, programs = cluster.images(), build.ensure(["pause", "coredns", "ctr"])
    archive = tmp_path / "image.tar"

    def load(program: str, name: str) -> None:
        write_program_image(programs[program], name, archive)
        began = time.monotonic()
        images.load(archive)
        print(f"{name} on every node after {time.monotonic() - began:.1f} s")

    load("pause", "example/replaced:1")
    api.kubectl("apply", "-f", "-", stdin=WAITING)
    api.kubectl("rollout", "status", "daemonset/waiting", "--timeout=60s")
    load("coredns", "example/replaced:1")
    load("coredns", "example/removed:1")
    # Has the store collect what nobody there needs any more.
    store = paths.RUN / "containerd.sock"
    remove = ("images", "delete", "--sync", "docker.io/example/removed:1")
    command = [str(programs["ctr"]), f"--address={store}", "--namespace=k8s.io", *remove]
    subprocess.run(command, check=True, capture_output=True)
    assert {node.name: broken_links(node) for node in NODES} == {node.name: [] for node in NODES}
    api.kubectl("delete", "daemonset", "waiting")


def test_a_node_that_stops_takes_its_pods_along_and_comes_back(cluster: Cluster, api: Api) -> None:
    node = NODES[1]
    others = [each for each in NODES if each != node]
    assert processes(node)
    began = time.monotonic()
    cluster.stop_node(node.name)
    print(f"stopped after {time.monotonic() - began:.1f} s")
    assert processes(node) == []
    assert not Path(f"/sys/class/net/{node.link}").exists()
    assert not node.sockets.exists()
    # Nobody was told: what is known of it is what was.
    assert node_is(api, node, "Ready", "True")
    eventually(lambda: node_is(api, node, "Ready", "Unknown"), what="NotReady", within=LOST_WITHIN)
    print(f"lost after {time.monotonic() - began:.0f} s")

    def service_is_whole() -> bool:
        for other in others:
            assert ask(other.namespace, "10.96.7.7:80", tries=12) == [12]
        return True

    eventually(service_is_whole, what="the Service to lead to the others only")
    began = time.monotonic()
    cluster.start_node(node.name)
    eventually(lambda: all_ready(api), what="the node to be Ready")
    eventually(lambda: everyone_answers(api), what="its pod to be back", within=120)
    print(f"back with its pods after {time.monotonic() - began:.0f} s")


def test_a_node_that_is_cut_off_goes_on_alone_until_it_is_healed(
    cluster: Cluster, api: Api
) -> None:
    node, other = NODES[2], NODES[0]
    address = pods(api)[node.name]
    alone = pod_of(node)
    cluster.cut_node(node.name, "all")
    assert ask(other.namespace, f"{address}:8080") == [0]
    assert ask(None, f"{address}:8080") == [0]
    # On the node all is well.
    assert ask(node.namespace, f"{address}:8080") == [1]
    assert ask(alone, f"{network.NODE_ADDRESS}:6443", f"{other.address}:10250") == [0, 0]
    eventually(lambda: node_is(api, node, "Ready", "Unknown"), what="NotReady", within=LOST_WITHIN)
    assert pod_of(node) == alone
    cluster.heal_node(node.name)
    eventually(lambda: all_ready(api), what="the node to be Ready", within=90)
    eventually(lambda: everyone_answers(api), what="all to reach all")
    assert pod_of(node) == alone


def test_a_node_can_lose_the_control_plane_alone(cluster: Cluster, api: Api) -> None:
    node, other = NODES[0], NODES[1]
    addresses = pods(api)
    cluster.cut_node(node.name, "control-plane")
    eventually(lambda: node_is(api, node, "Ready", "Unknown"), what="NotReady", within=LOST_WITHIN)
    assert ask(pod_of(node), f"{addresses[other.name]}:8080", tries=3) == [3]
    assert ask(pod_of(other), f"{addresses[node.name]}:8080", tries=3) == [3]
    assert ask(None, f"{addresses[node.name]}:8080") == [0]
    cluster.heal_node(node.name)
    eventually(lambda: all_ready(api), what="the node to be Ready", within=90)
    eventually(lambda: everyone_answers(api), what="all to reach all")


def test_a_full_disk_is_the_nodes_own_and_is_noticed(cluster: Cluster, api: Api) -> None:
    node = NODES[1]
    disk, others = node.disk, [each for each in NODES if each != node]
    assert disk is not None
    (scratch,) = node.kubelet.glob("pods/*/volumes/kubernetes.io~empty-dir/scratch")
    free = os.statvfs(paths.STATE).f_bavail
    cluster.fill_node(node.name)
    with pytest.raises(OSError, match="No space left"):
        (scratch / "data").write_bytes(bytes(10_000_000))
    for other in others:
        assert other.disk is not None
        assert os.statvfs(other.disk).f_bavail > 0
    assert os.statvfs(paths.STATE).f_bavail > free * 0.9
    eventually(lambda: node_is(api, node, "DiskPressure", "True"), what="DiskPressure", within=60)
    assert all(node_is(api, other, "DiskPressure", "False") for other in others)
    cluster.heal_node(node.name)
    eventually(lambda: node_is(api, node, "DiskPressure", "False"), what="no pressure", within=90)
    # Its images are still there, or again.
    api.kubectl("delete", "pods", "--selector=app=asked", "--field-selector=status.phase=Failed")
    eventually(lambda: everyone_answers(api), what="a pod on every node", within=120)


def test_up_repairs_every_node(cluster: Cluster, api: Api) -> None:
    cluster.stop_node(NODES[0].name)
    cluster.cut_node(NODES[1].name, "control-plane")
    cluster.cut_node(NODES[2].name, "all")
    cluster.up()
    assert cluster.status().node_ready
    eventually(lambda: all_ready(api), what="every node to be Ready", within=90)
    eventually(lambda: everyone_answers(api), what="all to reach all", within=120)


def test_down_leaves_nothing_with_a_node_stopped_and_one_cut_off(
    cluster: Cluster, api: Api, before: dict[str, object]
) -> None:
    assert machine() != before
    cluster.stop_node(NODES[2].name)
    cluster.cut_node(NODES[0].name, "control-plane")
    began = time.monotonic()
    cluster.down()
    print(f"down after {time.monotonic() - began:.0f} s")

    def as_before() -> bool:
        # A loop device goes when the kernel has written what was under way.
        now = machine()
        assert now == before
        return True

    eventually(as_before, what="the machine to be as it was", within=20)
    assert not any(Path("/sys/fs/cgroup").glob(f"*/{cgroups.ROOT.lstrip('/')}"))
