"""The demo itself: a photo's labels from version 1, and from version 2 with nobody noticing."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from demo import artifacts, setup
from demo.cluster import MANIFESTS, Cluster, devcluster, exported
from demo.console import Steps, command, say, table
from demo.errors import OutcomeError
from demo.load import Traffic
from demo.served import HOST, NAME, NAMESPACE, Served
from demo.setup import BUCKET
from demo.traffic import check, loads, report, tell

if TYPE_CHECKING:
    from demo.artifacts import Artifacts
    from demo.bucket import Bucket
    from demo.photo import Prediction
    from demo.setup import Options

_LOAD_STEPS = 8
_WIDEST = 90
"""Characters of a check's message."""
_SETUP_STEPS = 3
_BAD = {
    3: "its weights are nonsense",
    4: "it needs more memory than there is",
    5: "it calls its input by another name",
}
"""What is wrong with the versions behind the second."""
_LEAD_SECONDS = 2.0
"""How long requests flow before the change that they are to go through."""


def up(options: Options) -> None:
    """Everything, from nothing running to the last answer.

    Raises:
        DemoError: something failed, or a promise was not kept.
    """
    steps = Steps(_SETUP_STEPS + _LOAD_STEPS)
    _run(steps, _set_up(steps, options), options)


def install(options: Options) -> None:
    """What the main part needs, and nothing served yet.

    Raises:
        DemoError: something failed.
    """
    _set_up(Steps(_SETUP_STEPS), options)


def env(options: Options) -> None:
    """Print what a shell has to run to work with the cluster and its bucket.

    Raises:
        ClusterError: there is no cluster.
    """
    cluster = setup.cluster(options)
    programs = f"{Path(sys.executable).parent}:{cluster.kubectl_program.parent}"
    print(f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}")
    print(f"export STORAGE_EMULATOR_HOST=http://{setup.bucket(cluster).address}")
    print(f'export PATH={shlex.quote(programs)}:"$PATH"')


def run(options: Options) -> None:
    """The main part, on a cluster that ``up`` has prepared.

    Raises:
        DemoError: something failed, or a promise was not kept.
    """
    _run(Steps(_LOAD_STEPS), setup.cluster(options), options)


def down(options: Options) -> None:
    """Take away what ``up`` made.

    Raises:
        ClusterError: it could not be taken away.
    """
    if exported() is None:
        devcluster("down")
        return
    cluster = setup.cluster(options)
    for arguments in (
        ("delete", "namespace", NAMESPACE, "--ignore-not-found"),
        ("delete", "--ignore-not-found", "-k", MANIFESTS),
    ):
        say(cluster.kubectl(*arguments, show=True, timeout=300))


def _set_up(steps: Steps, options: Options) -> Cluster:
    embedded = exported() is None
    with steps.step("Start a Kubernetes cluster" if embedded else "Use the cluster of KUBECONFIG"):
        if embedded:
            devcluster("up", capture=True)
        cluster = setup.cluster(options)
        say(cluster.kubectl("get", "nodes", show=True))
    with steps.step("Bring the images to the node" if embedded else "Images"):
        setup.images(options)
    with steps.step("Install the operator, and a bucket with notifications"):
        setup.install(cluster, options)
    return cluster


def _run(steps: Steps, cluster: Cluster, options: Options) -> None:
    served = Served(cluster)
    bucket = setup.bucket(cluster)

    with steps.step("Build two versions of an ImageNet model, and three bad ones"):
        made = artifacts.ensure(say)
        served.remove()
        bucket.clear(f"{NAME}/")
    image = made.photo.read_bytes()

    with steps.step("Upload version 1, and ask for it on three replicas"):
        _upload(bucket, made, 1)
        served.apply(options.registry)
        served.wait_for_version(1, replicas=3)
        served.show()

    with steps.step("Ask what is in the photo, through the Ingress"):
        command("curl", f"http://{HOST}/v1/models/{NAME}:predict", f"({made.photo.name}, base64)")
        first = served.first_answer(image)
        say(first.as_json())

    traffic = Traffic(*loads(served, image, first, options.rate))
    with traffic:
        with steps.step("Upload version 2 while requests flow"):
            tell(traffic, image)
            time.sleep(_LEAD_SECONDS)
            with served.watched():
                _upload(bucket, made, 2)
                uploaded = time.monotonic()
                served.wait_for_version(2, replicas=3)
                took = time.monotonic() - uploaded
            _check_versions(served, 2)
            say(f"on every replica {took:.1f} s after the end of the upload")
            check(traffic)

        with steps.step("Ask again"):
            second = served.ask(image)
            _compare(first, second)

        with steps.step("Scale to 5 replicas and back to 3 under the same requests"):
            for replicas in (5, 3):
                served.scale(replicas, version=2)
                check(traffic)

        with steps.step("Upload three bad versions under the same requests"):
            for version, trouble in _BAD.items():
                _stop(served, bucket, made, version, trouble)
                check(traffic)

    with steps.step("Sum up"):
        report(traffic)
        check(traffic)
        say()
        say(f"version 2 answered on every replica {took:.1f} s after its upload,")
        say(f"versions {', '.join(map(str, _BAD))} were stopped, each at its check,")
        say(f"{traffic.sent} requests were sent, 0 failed,")
        say(f"and the demo took {sum(seconds for _, seconds in steps.done):.0f} s.")


def _upload(bucket: Bucket, made: Artifacts, version: int) -> None:
    archive = made.archive(version)
    started = time.monotonic()
    bucket.upload(f"{NAME}/{archive.name}", archive.read_bytes())
    size = archive.stat().st_size / 1e6
    say(
        f"uploaded gs://{BUCKET}/{NAME}/{archive.name}: {size:.1f} MB"
        f" in {time.monotonic() - started:.1f} s"
    )


def _stop(served: Served, bucket: Bucket, made: Artifacts, version: int, trouble: str) -> None:
    """Upload a bad version, and see what stops it."""
    say()
    say(f"version {version}: {trouble}")
    _upload(bucket, made, version)
    uploaded = time.monotonic()
    rollout = served.wait_for_rollout(version, ("RolledBack", "Paused"))
    say(f"{rollout.phase} after {time.monotonic() - uploaded:.1f} s: {rollout.message}")
    table(
        [
            ("CHECK", "RESULT", "WHAT WAS FOUND"),
            *((c.name, c.result, _short(c.message)) for c in rollout.checks),
        ]
    )
    if rollout.phase == "Paused":
        served.abort(version)
    _check_versions(served, 2)


def _short(text: str) -> str:
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"


def _check_versions(served: Served, version: int) -> None:
    """What the status says must be what each model server itself says."""
    answers = served.versions()
    table([("POD", "ITS MODEL SERVER SERVES"), *((pod, str(v)) for pod, v in answers.items())])
    if set(answers.values()) != {version}:
        raise OutcomeError(f"the status says version {version}, the model servers say {answers}")


def _compare(first: Prediction, second: Prediction) -> None:
    columns = [prediction.lines() for prediction in (first, second)]
    table([("VERSION 1", "VERSION 2"), *zip(*columns, strict=True)])
    if first == second:
        raise OutcomeError("version 2 gave the answer of version 1, to the last digit")
