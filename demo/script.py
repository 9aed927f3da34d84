"""The demo itself: a photo's labels from version 1, and from version 2 with nobody noticing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from demo import artifacts, messages, photo, setup
from demo.cluster import MANIFESTS, Cluster, devcluster, exported, reachable
from demo.console import Steps, command, say, table
from demo.errors import ClusterError, OutcomeError
from demo.load import Exchange, Load, Traffic, grpc_predict, rest
from demo.served import EXAMPLE, HOST, NAME, NAMESPACE, Served
from demo.setup import BUCKET

if TYPE_CHECKING:
    from demo.artifacts import Artifacts
    from demo.bucket import Bucket
    from demo.photo import Prediction
    from demo.setup import Options

_LOAD_STEPS = 7
_SETUP_STEPS = 3
_LEAD_SECONDS = 2.0
"""How long requests flow before the change that they are to go through."""
_INGRESS_SECONDS = 30.0
_PHOTO_EVERY = 10
"""One request in so many carries the photo, which costs a core some 20 ms; a small machine has to
serve, scale and load models beside."""
_CAT = 282
"""ImageNet's number of the photo's best label."""
_SCORE_TOLERANCE = 1e-3


def up(options: Options) -> None:
    """Everything, from nothing running to the last answer.

    Raises:
        DemoError: something failed, or a promise was not kept.
    """
    steps = Steps(_SETUP_STEPS + _LOAD_STEPS)
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
    _run(steps, cluster, options)


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


def _run(steps: Steps, cluster: Cluster, options: Options) -> None:
    served = Served(cluster)
    bucket = setup.bucket(cluster)

    with steps.step("Build two versions of an ImageNet model"):
        made = artifacts.ensure(say)
        served.remove()
        bucket.clear(f"{NAME}/")

    with steps.step("Upload version 1, and ask for it on three replicas"):
        _upload(bucket, made, 1)
        cluster.kubectl("create", "namespace", NAMESPACE, show=True)
        _apply(served, options)
        served.wait_for_version(1, replicas=3)
        served.show()

    with steps.step("Ask what is in the photo, through the Ingress"):
        command("curl", f"http://{HOST}/v1/models/{NAME}:predict", f"({made.photo.name}, base64)")
        first = _first_answer(cluster, made)
        say(first.as_json())

    traffic = Traffic(*_loads(served, made, first, options))
    with traffic:
        with steps.step("Upload version 2 while requests flow"):
            _tell_loads(traffic, made)
            time.sleep(_LEAD_SECONDS)
            with served.watched():
                _upload(bucket, made, 2)
                uploaded = time.monotonic()
                served.wait_for_version(2, replicas=3)
                took = time.monotonic() - uploaded
            _check_versions(served, 2)
            say(f"on every replica {took:.1f} s after the end of the upload")
            _check_traffic(traffic)

        with steps.step("Ask again"):
            second = _ask(cluster, made)
            _compare(first, second)

        with steps.step("Scale to 5 replicas and back to 3 under the same requests"):
            for replicas in (5, 3):
                _scale(served, replicas)
                _check_traffic(traffic)

    with steps.step("Sum up"):
        _report(traffic)
        _check_traffic(traffic)
        say()
        say(f"version 2 answered on every replica {took:.1f} s after its upload,")
        say(f"{traffic.sent} requests were sent, 0 failed,")
        say(f"and the demo took {sum(seconds for _, seconds in steps.done):.0f} s.")


def _upload(bucket: Bucket, made: Artifacts, version: int) -> None:
    archive = made.archive(version)
    started = time.monotonic()
    bucket.upload(archive, f"{NAME}/{archive.name}")
    size = archive.stat().st_size / 1e6
    say(
        f"uploaded gs://{BUCKET}/{NAME}/{archive.name}: {size:.1f} MB"
        f" in {time.monotonic() - started:.1f} s"
    )


def _apply(served: Served, options: Options) -> None:
    served.kubectl("apply", "-f", EXAMPLE, show=True)
    if options.registry:
        image = f"{options.registry}/development-model-server:0.1.0"
        patch = f'{{"spec": {{"server": {{"image": "{image}"}}}}}}'
        served.kubectl("patch", "inferencemodel", NAME, "--type=merge", "--patch", patch)


def _check_versions(served: Served, version: int) -> None:
    """What the status says must be what each model server itself says."""
    answers = served.versions()
    table([("POD", "ITS MODEL SERVER SERVES"), *((pod, str(v)) for pod, v in answers.items())])
    if set(answers.values()) != {version}:
        raise OutcomeError(f"the status says version {version}, the model servers say {answers}")


def _first_answer(cluster: Cluster, made: Artifacts) -> Prediction:
    """The ingress controller hears of a new Ingress a moment after the resource is ready."""
    deadline = time.monotonic() + _INGRESS_SECONDS
    while True:
        try:
            return _ask(cluster, made)
        except OutcomeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def _ask(cluster: Cluster, made: Artifacts) -> Prediction:
    return photo.classify(cluster.ingress, HOST, NAME, made.photo.read_bytes())


def _compare(first: Prediction, second: Prediction) -> None:
    columns = [prediction.lines() for prediction in (first, second)]
    table([("VERSION 1", "VERSION 2"), *zip(*columns, strict=True)])
    if first == second:
        raise OutcomeError("version 2 gave the answer of version 1, to the last digit")


def _loads(served: Served, made: Artifacts, first: Prediction, options: Options) -> list[Load]:
    """One load through the Ingress, and one past it to the pods where they can be reached."""
    image = made.photo.read_bytes()
    label = first.classes[0]

    def which_photo(answer: bytes) -> str:
        # REST doesn't name the version, but the scores tell.
        close = abs(photo.read(answer).scores[0] - first.scores[0]) < _SCORE_TOLERANCE
        return "version 1" if close else "version 2"

    def which_label(answer: bytes) -> str:
        if photo.read_label(answer) != label:
            raise ValueError(f"class {_CAT} is not {label}")
        return "not told"

    def which_version(response: Any) -> str:
        return f"version {response.model_spec.version.value}"

    look_ups = _PHOTO_EVERY - 1
    url = f"http://{served.cluster.ingress}/v1/models/{NAME}:predict"
    exchanges = [Exchange(photo.rest_body(image), which_photo)]
    exchanges += [Exchange(photo.label_body(_CAT), which_label)] * look_ups
    loads = [Load("REST through the Ingress", rest(url, exchanges, host=HOST), options.rate)]
    target = _grpc_target(served)
    if target:
        exchanges = [Exchange(messages.photo_request(NAME, image), which_version)]
        exchanges += [Exchange(messages.label_request(NAME, _CAT), which_version)] * look_ups
        client = grpc_predict(target, exchanges, messages.PredictResponse)
        loads.append(Load("gRPC to the pods", client, options.rate))
    return loads


def _grpc_target(served: Served) -> str | None:
    """The headless Service by the cluster's own DNS, None where that can't be reached from here."""
    try:
        dns = served.cluster.read("--namespace=kube-system", "service", "kube-dns")
    except ClusterError:
        return None
    address = dns["spec"]["clusterIP"]
    service = served.cluster.read(f"--namespace={NAMESPACE}", "service", NAME)
    if not reachable(service["spec"]["clusterIP"], 8500):
        return None
    return f"dns://{address}:53/{NAME}-headless.{NAMESPACE}.svc.cluster.local:8500"


def _tell_loads(traffic: Traffic, made: Artifacts) -> None:
    size = made.photo.stat().st_size / 1e3
    for load in traffic.loads:
        say(f"{load.name}: {load.rate:.0f} requests/s")
    say(f"(one in {_PHOTO_EVERY} with the photo, {size:.0f} kB; the others look up a label)")
    if len(traffic.loads) == 1:
        say("gRPC is left out: this machine doesn't reach the pods' network")


def _scale(served: Served, replicas: int) -> None:
    served.kubectl("scale", f"inferencemodel/{NAME}", f"--replicas={replicas}", show=True)
    served.wait_for_version(2, replicas=replicas)
    say(f"{replicas} of {replicas} replicas are ready")
    leaving = len(served.pods()) - replicas
    if leaving > 0:
        say(f"{leaving} more finish what they have begun, and go")
        deadline = time.monotonic() + 120
        while len(served.pods()) > replicas:
            if time.monotonic() > deadline:
                raise OutcomeError(f"after 120 s there are still more than {replicas} pods")
            time.sleep(1.0)


def _check_traffic(traffic: Traffic) -> None:
    """Nothing may have failed so far."""
    traffic.check()
    failures = traffic.failures
    say(f"{traffic.sent} requests so far, {len(failures)} failed")
    if failures:
        for failure in failures[:10]:
            moment = time.strftime("%H:%M:%S", time.gmtime(failure.at))
            say(f"  {moment} {failure.load}: {failure.reason}")
        raise OutcomeError(f"{len(failures)} of {traffic.sent} requests failed")


def _report(traffic: Traffic) -> None:
    rows = [("LOAD", "SENT", "VERSION 1", "VERSION 2", "NOT TOLD", "FAILED", "MEDIAN", "99 %")]
    rows += [
        (
            load.name,
            str(load.sent),
            str(load.answers["version 1"]),
            str(load.answers["version 2"]),
            str(load.answers["not told"]),
            str(len(load.failures)),
            f"{load.quantile(0.5) * 1e3:.0f} ms",
            f"{load.quantile(0.99) * 1e3:.0f} ms",
        )
        for load in traffic.loads
    ]
    table(rows)
