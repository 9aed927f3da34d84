"""The demo's requests: by REST through the Ingress, and by gRPC straight to the pods."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from demo import messages, photo
from demo.cluster import reachable
from demo.console import say, table
from demo.errors import ClusterError, OutcomeError
from demo.load import MAX_SECONDS, Exchange, Load, Traffic, grpc_predict, rest
from demo.served import HOST, NAME, NAMESPACE

if TYPE_CHECKING:
    from demo.photo import Prediction
    from demo.served import Served

_PHOTO_EVERY = 10
"""One request in so many carries the photo, which costs a core some 20 ms; a small machine has to
serve, scale and load models beside."""
_CAT = 282
"""ImageNet's number of the photo's best label."""
_SCORE_TOLERANCE = 1e-3


def loads(
    served: Served,
    image: bytes,
    first: Prediction,
    rate: float,
    *,
    longest: float = MAX_SECONDS,
) -> list[Load]:
    """One load through the Ingress, and one past it to the pods where they can be reached.

    Args:
        served: what is asked.
        image: the photo.
        first: what version 1 sees in it.
        rate: requests a second of each load.
        longest: seconds after which each ends by itself, which is an error.
    """
    label = first.classes[0]

    def which_photo(answer: bytes) -> str:
        # REST doesn't name the version, but the scores tell.
        close = abs(photo.read(answer).scores[0] - first.scores[0]) < _SCORE_TOLERANCE
        return "old scores" if close else "new scores"

    def which_label(answer: bytes) -> str:
        if photo.read_label(answer) != label:
            raise ValueError(f"class {_CAT} is not {label}")
        return "look-ups"

    def which_version(response: Any) -> str:
        return f"version {response.model_spec.version.value}"

    look_ups = _PHOTO_EVERY - 1
    url = f"http://{served.cluster.ingress}/v1/models/{NAME}:predict"
    exchanges = [Exchange(photo.rest_body(image), which_photo)]
    exchanges += [Exchange(photo.label_body(_CAT), which_label)] * look_ups
    found = [Load("REST through the Ingress", rest(url, exchanges, host=HOST), rate, longest)]
    target = _grpc_target(served)
    if target:
        exchanges = [Exchange(messages.photo_request(NAME, image), which_version)]
        exchanges += [Exchange(messages.label_request(NAME, _CAT), which_version)] * look_ups
        client = grpc_predict(target, exchanges, messages.PredictResponse)
        found.append(Load("gRPC to the pods", client, rate, longest))
    return found


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


def tell(traffic: Traffic, image: bytes) -> None:
    """Say what is sent."""
    for load in traffic.loads:
        say(f"{load.name}: {load.rate:.0f} requests/s")
    size = f"{len(image) / 1e3:.0f} kB"
    say(f"(one in {_PHOTO_EVERY} with the photo, {size}; the others look up a label)")
    if len(traffic.loads) == 1:
        say("gRPC is left out: this machine doesn't reach the pods' network")


def check(traffic: Traffic) -> None:
    """Make sure that nothing has failed so far.

    Raises:
        OutcomeError: a request failed; the first ones are shown.
        LoadError: requests can't be sent at all.
    """
    traffic.check()
    failures = traffic.failures
    say(f"{traffic.sent} requests so far, {len(failures)} failed")
    if failures:
        for failure in failures[:10]:
            moment = time.strftime("%H:%M:%S", time.gmtime(failure.at))
            say(f"  {moment} {failure.load}: {failure.reason}")
        raise OutcomeError(f"{len(failures)} of {traffic.sent} requests failed")


def report(traffic: Traffic) -> None:
    """Print what was sent, which version answered, and how fast."""
    rows = [("LOAD", "SENT", "FAILED", "MEDIAN", "99 %", "ANSWERS")]
    rows += [
        (
            load.name,
            str(load.sent),
            str(len(load.failures)),
            f"{load.quantile(0.5) * 1e3:.0f} ms",
            f"{load.quantile(0.99) * 1e3:.0f} ms",
            ", ".join(f"{count} {name}" for name, count in sorted(load.answers.items())),
        )
        for load in traffic.loads
    ]
    table(rows)
