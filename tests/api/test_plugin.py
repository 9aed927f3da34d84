"""``kubectl inferencemodel`` against a real API server; the test writes the statuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import yaml
from typer.testing import CliRunner

from kubectl_inferencemodel import cli
from kubectl_inferencemodel.errors import ClusterError, NotFoundError, PluginError, RefusedError
from tests.support import crd
from tests.support.cable import Cable
from tests.support.command import Command
from tests.support.http_servers import serving
from tests.support.kubectl import Kubectl
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devcluster.client import Api

pytestmark = pytest.mark.api

Object = dict[str, Any]
APP = cli.program()
_ROLE = re.compile(r"```yaml\n(apiVersion: rbac.*?)```", re.DOTALL)
METADATA = {
    "model_spec": {"name": "imagenet", "signature_name": "", "version": "2"},
    "metadata": {
        "signature_def": {
            "signature_def": {
                "serving_default": {"inputs": {"image_bytes": {"dtype": "DT_STRING"}}}
            }
        }
    },
}


class Plugin:
    """The command line, on one cluster and namespace."""

    def __init__(self, kubectl: Kubectl) -> None:
        self.kubectl = kubectl
        self.context = [f"--kubeconfig={kubectl.kubeconfig}", f"--namespace={kubectl.namespace}"]

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Run one command in this process, and return what it printed on both streams."""
        done = CliRunner().invoke(APP, [*arguments, *self.context], catch_exceptions=False)
        assert done.exit_code == code, done.output
        return done.output

    def json(self, *arguments: str, code: int = 0) -> Any:
        """The same with ``-o json``, without what goes to stderr."""
        done = CliRunner().invoke(
            APP, [*arguments, "-o", "json", *self.context], catch_exceptions=False
        )
        assert done.exit_code == code, done.output
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def plugin(api_server: Api) -> Iterator[Plugin]:
    with crd.installed(api_server) as namespace:
        yield Plugin(Kubectl(api_server.program, api_server.kubeconfig, namespace))


def create(kubectl: Kubectl, name: str, **spec: Any) -> None:
    kubectl.apply(
        {
            "apiVersion": "inferencemodel.dev/v1alpha1",
            "kind": "InferenceModel",
            "metadata": {"name": name},
            "spec": {"model": {"storageUri": f"gs://models/{name}"}, "replicas": 3, **spec},
        }
    )


def tell(kubectl: Kubectl, name: str, *, active: int, target: int, **status: Any) -> None:
    """Write the status that an operator would, for version ``target`` on its way."""
    done = active == target
    generation = kubectl.get("inferencemodel", name)["metadata"]["generation"]
    conditions = {
        "Ready": ("True", "Serving"),
        "SourceReady": ("True", "Listed"),
        "ModelLoaded": ("True", "Loaded") if done else ("False", "Loading"),
        "Reconciling": ("False", "Settled") if done else ("True", "ChangingVersion"),
        "Stalled": ("False", "NotStalled"),
    }
    told: Object = {
        "observedGeneration": generation,
        "conditions": [
            {
                "type": kind,
                "status": state,
                "reason": reason,
                "message": f"{kind} in words",
                "observedGeneration": generation,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
            for kind, (state, reason) in conditions.items()
        ],
        "replicaSummary": "3/3",
        "model": {
            "activeVersion": active,
            "targetVersion": target,
            "latestVersion": target,
            "transitionStatus": "UpToDate" if done else "InProgress",
            "versions": [
                {"version": v, "state": "Available" if v == active else "Loading", "replicas": n}
                for v, n in sorted({active: 3, target: 3 if done else 0}.items(), reverse=True)
            ],
        },
        **status,
    }
    kubectl(
        *("patch", "inferencemodel", name, "--subresource=status", "--type=merge"),
        *("--patch", json.dumps({"status": told})),
    )


@contextmanager
def model_server() -> Iterator[tuple[str, list[Object]]]:
    """A model server that knows metadata and predict: its URL, and the requests it got."""
    asked: list[Object] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(METADATA)

        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            scores = {"classes": ["tabby", "tiger cat"], "scores": [0.181, 0.396]}
            self.answer({"predictions": [scores]})

        def answer(self, content: Object) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with serving(Handler) as url:
        yield f"{url}/v1/models/imagenet", asked


def test_list_shows_every_resource_and_who_answers_with_what(plugin: Plugin) -> None:
    create(plugin.kubectl, "listed")
    tell(plugin.kubectl, "listed", active=1, target=2)
    create(plugin.kubectl, "new")
    header, *rows = plugin("list").splitlines()
    assert header.split()[:3] == ["NAME", "VERSION", "TARGET"]
    shown = {row.split()[0]: row.split()[1:-1] for row in rows}
    assert shown["listed"] == ["1", "2", "True", "3/3", "InProgress", "-", "v1", "x3"]
    assert shown["new"] == ["-"] * 7


def test_list_of_all_namespaces_names_each(plugin: Plugin) -> None:
    create(plugin.kubectl, "everywhere")
    rows = [row.split() for row in plugin("list", "-A").splitlines()]
    assert rows[0][0] == "NAMESPACE"
    assert [plugin.kubectl.namespace, "everywhere"] in [row[:2] for row in rows]


def test_list_as_json_counts_the_replicas_of_each_version(plugin: Plugin) -> None:
    create(plugin.kubectl, "counted")
    tell(plugin.kubectl, "counted", active=2, target=2)
    counted = next(m for m in plugin.json("list") if m["name"] == "counted")
    assert counted["versions"] == {"2": 3}
    assert (counted["activeVersion"], counted["ready"]) == (2, "True")


def test_why_tells_the_conditions_and_the_pods_that_hold_it_up(plugin: Plugin) -> None:
    create(plugin.kubectl, "slow")
    tell(plugin.kubectl, "slow", active=1, target=2)
    container = {"name": "model-server", "image": "none"}
    plugin.kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "slow-a", "labels": {"inferencemodel.dev/name": "slow"}},
            "spec": {"containers": [container]},
        }
    )
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no image none"}}
    state = {"name": "model-server", "image": "none", "imageID": "", "ready": False}
    plugin.kubectl(
        *("patch", "pod", "slow-a", "--subresource=status", "--type=merge", "--patch"),
        json.dumps(
            {"status": {"containerStatuses": [{**state, "restartCount": 0, "state": waiting}]}}
        ),
    )
    found = plugin.json("why", "slow")
    told = {(f["about"], f["reason"]): f["message"] for f in found["findings"]}
    assert found["settled"] is False
    assert "it waits for version 2, which is being loaded" in found["summary"]
    assert told["ModelLoaded", "Loading"] == "ModelLoaded in words"
    assert told["pod slow-a", "ImagePullBackOff"] == "container model-server: no image none"
    assert "no image none" in plugin("why", "slow")


def test_versions_shows_each_with_its_state(plugin: Plugin) -> None:
    create(plugin.kubectl, "many")
    tell(plugin.kubectl, "many", active=1, target=2)
    rows = [row.split() for row in plugin("versions", "many").splitlines()]
    assert rows[1][:3] == ["2", "Loading", "0"]
    assert rows[2] == ["1", "Available", "3", "active"]
    assert plugin.json("versions", "many")["activeVersion"] == 1


def test_wait_ends_when_the_version_is_on_every_replica(plugin: Plugin) -> None:
    create(plugin.kubectl, "coming")
    tell(plugin.kubectl, "coming", active=1, target=2)
    arrival = threading.Timer(1.0, lambda: tell(plugin.kubectl, "coming", active=2, target=2))
    arrival.start()
    try:
        shown = plugin("wait", "coming", "--version=2", "--timeout=60s")
    finally:
        arrival.join()
    assert shown.splitlines() == [
        "version 2, which is being loaded by the model server",
        "version 2 answers on 3/3 replicas",
    ]


def test_wait_ends_with_3_when_the_time_is_up(plugin: Plugin) -> None:
    create(plugin.kubectl, "late")
    tell(plugin.kubectl, "late", active=1, target=2)
    seen = plugin.json("wait", "late", "--version=2", "--timeout=1", code=3)
    assert (seen["outcome"], seen["version"]) == ("Waiting", 2)


def test_wait_ends_with_4_as_soon_as_it_is_hopeless(plugin: Plugin) -> None:
    create(plugin.kubectl, "broken")
    tell(plugin.kubectl, "broken", active=1, target=1)
    failed = [{"version": 2, "reason": "LoadFailed", "message": "no such op: Foo"}]
    plugin.kubectl(
        *("patch", "inferencemodel", "broken", "--subresource=status", "--type=merge"),
        *("--patch", json.dumps({"status": {"model": {"quarantined": failed}}})),
    )
    shown = plugin("wait", "broken", "--version=2", "--timeout=1h", code=4)
    assert "no such op: Foo" in shown


def test_wait_goes_on_while_the_api_server_can_not_be_asked(plugin: Plugin, tmp_path: Path) -> None:
    create(plugin.kubectl, "patient")
    tell(plugin.kubectl, "patient", active=2, target=2)
    config = json.loads(plugin.kubectl("config", "view", "--raw", "-o", "json"))
    port = urlsplit(config["clusters"][0]["cluster"]["server"]).port
    assert port is not None
    with Cable(port) as cable:
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{cable.port}"
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(json.dumps(config))
        through = Plugin(Kubectl(plugin.kubectl.program, kubeconfig, plugin.kubectl.namespace))
        cable.cut()
        mended = threading.Timer(1.0, cable.mend)
        mended.start()
        try:
            shown = through("wait", "patient", "--version=2", "--timeout=60s")
        finally:
            mended.join()
        assert "can't be asked" in shown
        assert "version 2 answers" in shown
        cable.cut()
        late = through.json("wait", "patient", "--version=2", "--timeout=1", code=3)
        assert "can't be asked" in late["message"]


ROLLOUT = {
    "version": 3,
    "fromVersion": 2,
    "phase": "Paused",
    "step": 1,
    "steps": 2,
    "replicasOn": 1,
    "replicasWanted": 1,
    "startTime": "2026-01-01T14:30:00Z",
    "message": "promote or abort it",
}


def roll(kubectl: Kubectl, name: str, **differences: Any) -> None:
    """Write the status in the middle of a rollout of version 3."""
    tell(kubectl, name, active=2, target=3)
    told = {"status": {"model": {"rollout": {**ROLLOUT, **differences}}}}
    kubectl(
        *("patch", "inferencemodel", name, "--subresource=status", "--type=merge"),
        *("--patch", json.dumps(told)),
    )


def written(kubectl: Kubectl, name: str) -> dict[str, str]:
    """The actions that are written, without kubectl's own note of what it applied."""
    annotations = kubectl.get("inferencemodel", name)["metadata"].get("annotations", {})
    return {key: text for key, text in annotations.items() if key.startswith("inferencemodel.dev/")}


@contextmanager
def operator(kubectl: Kubectl, name: str, **result: Any) -> Iterator[None]:
    """Takes the first action that is written, and does this to the rollout."""

    def act() -> None:
        eventually(lambda: written(kubectl, name), what="an action is written")
        for key in written(kubectl, name):
            kubectl("annotate", "inferencemodel", name, f"{key}-")
        roll(kubectl, name, **result)

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_a_rollout_is_promoted_and_the_next_step_is_told(plugin: Plugin) -> None:
    create(plugin.kubectl, "promoted")
    roll(plugin.kubectl, "promoted")
    shown = plugin("rollout", "promoted", code=3)
    assert "promoted: version 3 (from 2) Paused" in shown
    assert "1 of 1 replicas answer with it" in shown
    with operator(plugin.kubectl, "promoted", phase="Progressing", step=2, message=""):
        told = plugin("promote", "promoted")
    assert "version 3: step 2 of 2" in told


def test_an_aborted_version_ends_its_wait(plugin: Plugin) -> None:
    create(plugin.kubectl, "aborted")
    roll(plugin.kubectl, "aborted")
    with operator(plugin.kubectl, "aborted", phase="RollingBack", message="somebody aborted it"):
        assert "version 3 is taken back" in plugin("abort", "aborted", "--version=3")
    told = plugin.json("wait", "aborted", "--version=3", "--timeout=1h", code=4)
    assert told["message"] == "version 3 is taken back (RollingBack): somebody aborted it"


def test_a_step_is_waited_for(plugin: Plugin) -> None:
    create(plugin.kubectl, "stepped")
    roll(plugin.kubectl, "stepped", replicasOn=0)
    late = plugin("wait", "stepped", "--for=step=1", "--timeout=100ms", code=3)
    assert "step 1 of 2, 0 of 1 replicas answer with it" in late
    roll(plugin.kubectl, "stepped")
    told = plugin.json("wait", "stepped", "--for=step=1", "--version=3")
    assert (told["step"], told["outcome"]) == (1, "Arrived")


def test_rollouts_stand_still_and_go_on(plugin: Plugin) -> None:
    create(plugin.kubectl, "paused")
    for command, paused in (("pause", True), ("resume", False)):
        plugin(command, "paused", "--no-wait")
        spec = plugin.kubectl.get("inferencemodel", "paused")["spec"]
        assert spec["rollout"]["paused"] is paused


def test_who_applies_the_field_is_told_that_it_will_come_back(plugin: Plugin) -> None:
    create(plugin.kubectl, "declared", rollout={"paused": False})
    shown = plugin("pause", "declared", "--no-wait")
    assert "spec.rollout.paused is managed by" in shown


def test_where_there_is_nothing_to_act_on_the_resource_stays_as_it_is(plugin: Plugin) -> None:
    create(plugin.kubectl, "calm")
    tell(plugin.kubectl, "calm", active=2, target=2)
    before = plugin.kubectl.get("inferencemodel", "calm")
    for command in ("promote", "abort", "approve", "retry"):
        with pytest.raises(RefusedError, match="calm"):
            plugin(command, "calm")
    assert plugin.kubectl.get("inferencemodel", "calm") == before


def test_wait_for_what_is_wanted_needs_no_number(plugin: Plugin) -> None:
    create(plugin.kubectl, "settled")
    tell(plugin.kubectl, "settled", active=2, target=2)
    assert "version 2 answers" in plugin("wait", "settled", "--timeout=10s")


@pytest.mark.parametrize("timeout", ["soon", "5 m", "1d"])
def test_a_timeout_that_is_no_duration_is_wrong_usage(plugin: Plugin, timeout: str) -> None:
    assert "no duration" in plugin("wait", "any", f"--timeout={timeout}", code=2)


def test_predict_by_the_url_of_the_status_prints_labels_best_first(
    plugin: Plugin, tmp_path: Path
) -> None:
    create(plugin.kubectl, "imagenet")
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"\xff\xd8")
    with model_server() as (url, asked):
        tell(plugin.kubectl, "imagenet", active=2, target=2, url=url)
        shown = plugin("predict", "imagenet", f"--image={photo}", "--via=url", "--top=1")
        told = plugin.json("predict", "imagenet", f"--image={photo}", "--via=url")
    assert asked[0]["instances"] == [{"image_bytes": {"b64": "/9g="}}]
    assert "0.396" in shown
    assert "tiger cat" in shown
    assert "tabby" not in shown
    assert "by version 2 of imagenet" in shown
    assert told["version"] == 2
    assert told["predictions"][0]["scores"] == [0.181, 0.396]


def test_predict_through_the_api_server_tells_what_is_wrong_when_nothing_serves(
    plugin: Plugin, tmp_path: Path
) -> None:
    create(plugin.kubectl, "unserved")
    request = tmp_path / "request.json"
    request.write_text("{}")
    with pytest.raises(PluginError, match='unserved answers 404: services "unserved" not found'):
        plugin("predict", "unserved", f"--json={request}")
    assert "one of --image and --json" in plugin("predict", "unserved", code=2)


def test_a_name_that_is_not_there_is_an_error_at_once(plugin: Plugin) -> None:
    for command in ("why", "versions", "wait"):
        with pytest.raises(NotFoundError, match='"missing" not found'):
            plugin(command, "missing")


def test_a_context_that_is_not_there_is_an_error(plugin: Plugin) -> None:
    with pytest.raises(ClusterError, match="elsewhere"):
        plugin("list", "--context=elsewhere")


def test_the_rights_that_the_docs_give_a_pipeline_are_enough(
    plugin: Plugin, tmp_path: Path
) -> None:
    create(plugin.kubectl, "deployed")
    tell(plugin.kubectl, "deployed", active=2, target=2)
    (text,) = _ROLE.findall((crd.ROOT / "docs" / "ci.md").read_text())
    role = yaml.safe_load(text)
    plugin.kubectl.apply(role)
    plugin.kubectl("create", "serviceaccount", "deployer")
    account = f"--serviceaccount={plugin.kubectl.namespace}:deployer"
    plugin.kubectl(
        "create", "rolebinding", "deployer", f"--role={role['metadata']['name']}", account
    )
    limited = plugin.kubectl.as_service_account("deployer", tmp_path / "kubeconfig")

    create(limited, "deployed", suspend=False)
    create(limited, "another")
    limited(
        *("patch", "inferencemodel", "deployed", "--type=merge"),
        *("--patch", '{"spec": {"model": {"version": 2}}}'),
    )
    tell(plugin.kubectl, "deployed", active=2, target=2)
    deployer = Plugin(limited)
    for command in (["list"], ["why", "deployed"], ["versions", "deployed"]):
        assert deployer(*command)
    assert "version 2 answers" in deployer("wait", "deployed", "--version=2", "--timeout=10s")
    with pytest.raises(ClusterError, match="is forbidden"):
        deployer("list", "-A")
    plugin.kubectl("delete", "rolebinding", "deployer")
    with pytest.raises(ClusterError, match="is forbidden"):
        deployer("wait", "deployed", "--version=3", "--timeout=1h")


@pytest.mark.parametrize("command", ["inferencemodel", "tfm"])
def test_kubectl_finds_the_plugin_by_both_names(
    plugin: Plugin, tmp_path: Path, command: str
) -> None:
    program = tmp_path / f"kubectl-{command}"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m kubectl_inferencemodel "$@"\n')
    program.chmod(0o755)
    done = subprocess.run(
        [str(plugin.kubectl.program), command, "why", "missing", *plugin.context],
        env={
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "PYTHONPATH": f"{crd.ROOT}/plugin:{crd.ROOT}/operator:{crd.ROOT}/poller",
            "HOME": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: InferenceModel ")


def test_what_changes_is_shown_while_somebody_looks(plugin: Plugin) -> None:
    kubectl = plugin.kubectl
    create(kubectl, "changing")
    kubectl("label", "inferencemodel", "changing", "team=changes")
    tell(kubectl, "changing", active=2, target=2)
    with ExitStack() as open_:
        every, why, versions = (
            open_.enter_context(Command(*words, "--watch", *plugin.context))
            for words in (
                ("list", "-lteam=changes"),
                ("why", "changing"),
                ("versions", "changing"),
            )
        )
        every.until("changing   2   2   True   3/3   UpToDate")
        why.until("Version 2 answers on 3/3 replicas, and that is all that is wanted.")
        versions.until("version 2: Available, 3 replicas: active, target, newest")
        tell(kubectl, "changing", active=2, target=3)
        every.until("changing   2   3   True   3/3   InProgress")
        why.until("it waits for version 3")
        versions.until("version 3: Loading, 0 replicas: target, newest")
        kubectl("delete", "inferencemodel", "changing")
        every.until("changing is deleted")
        every.interrupt()
        assert "not found" in why.end(1)


def test_kubectl_completes_the_plugins_commands_and_the_clusters_names(
    plugin: Plugin, tmp_path: Path
) -> None:
    create(plugin.kubectl, "completed")
    for name in ("kubectl-inferencemodel", "kubectl_complete-inferencemodel"):
        program = tmp_path / name
        start = f"import sys; sys.argv[0] = {name!r}; from kubectl_inferencemodel.cli import main"
        program.write_text(f"#!{sys.executable}\n{start}; main()\n")
        program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "KUBECONFIG": str(plugin.kubectl.kubeconfig),
    }

    def completed(*words: str) -> list[str]:
        done = subprocess.run(
            [plugin.kubectl.program, "__complete", "inferencemodel", *words],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return [line.partition("\t")[0] for line in done.stdout.splitlines()]

    assert completed("vers") == ["versions", ":4"]
    namespace = str(plugin.kubectl.namespace)
    assert completed("why", "-n", namespace, "complet") == ["completed", ":4"]
    assert completed("list", f"--namespace={namespace[:-1]}") == [f"--namespace={namespace}", ":4"]
