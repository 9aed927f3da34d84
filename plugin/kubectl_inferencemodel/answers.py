"""The commands about what versions answer: to ask for it, to record it, and to compare it."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from kubectl_inferencemodel import (
    comparison,
    comparison_display,
    display,
    output,
    predictions,
    recording,
)
from kubectl_inferencemodel.arguments import (
    MAX_VERSION,
    As,
    Context,
    Kubeconfig,
    Name,
    Namespace,
    Output,
    Via,
)
from kubectl_inferencemodel.arrival import Outcome
from kubectl_inferencemodel.asking import ask, read_file
from kubectl_inferencemodel.cluster import Cluster
from kubectl_inferencemodel.errors import AnswerError, ServerError
from kubectl_inferencemodel.picture import Reports
from model_poller.model_server import records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubectl_inferencemodel.resource import InferenceModel

_TRIES: Final = 20
_PAUSE_SECONDS: Final = 0.1
"""In the middle of a rollout a Service leads to replicas of either version, one after the other."""


def predict(
    name: Name,
    *,
    image: Annotated[
        Path | None, typer.Option(help="A picture; its file's bytes are sent.", dir_okay=False)
    ] = None,
    request: Annotated[
        Path | None,
        typer.Option("--json", help="A request of the REST API instead; - is standard input."),
    ] = None,
    version: Annotated[
        int | None, typer.Option(min=0, max=MAX_VERSION, help="Ask this version.")
    ] = None,
    signature: Annotated[str, typer.Option(help="The model's signature.")] = "serving_default",
    top: Annotated[int, typer.Option(min=1, help="How many labels to print.")] = 5,
    labels: Annotated[
        Path | None,
        typer.Option(help="Names of the classes, one a line, for a model that gives numbers."),
    ] = None,
    via: Annotated[
        Via,
        typer.Option(
            help="Through the API server to the Service, which needs no Ingress, "
            "or by the URL that the status tells."
        ),
    ] = Via.PROXY,
    output_: As = Output.TABLE,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Ask NAME about a picture, and print labels and probabilities."""
    if (image is None) == (request is None):
        raise typer.BadParameter("give one of --image and --json")
    names = _lines(labels) if labels else []
    cluster = Cluster(kubeconfig, context, namespace)
    model = cluster.model(name)
    at = "" if version is None else f"/versions/{version}"
    known = predictions.described(ask(cluster, model, f"{at}/metadata", via=via))
    if image is not None:
        body = predictions.picture(known, read_file(image), signature=signature)
    else:
        body = read_file(request)
    told = predictions.read(ask(cluster, model, f"{at}:predict", body, via=via))
    if output_ is Output.JSON:
        output.show_json({"version": known.version, "predictions": told})
        return
    for answer in told:
        found = predictions.labels(answer, names)
        if found is None:
            output.show_json(answer)
        else:
            output.show(display.labels(found[:top]))
    output.tell(f"by version {known.version} of {name}")


def record(
    name: Name,
    *,
    out: Annotated[Path, typer.Option("--out", help="The file to write.", dir_okay=False)],
    image: Annotated[
        list[Path] | None,
        typer.Option(help="A picture; its file's bytes are sent. Several make several records."),
    ] = None,
    request: Annotated[
        list[Path] | None,
        typer.Option("--json", help="A request of the REST API; - is standard input."),
    ] = None,
    version: Annotated[
        int | None,
        typer.Option(min=0, max=MAX_VERSION, help="Whose answers; default: the active version's."),
    ] = None,
    signature: Annotated[
        str, typer.Option(help="The model's signature for pictures.")
    ] = recording.DEFAULT_SIGNATURE,
    via: Annotated[Via, typer.Option(help="As of predict.")] = Via.PROXY,
    output_: As = Output.TABLE,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Record requests with the answers that NAME gives, as golden records for later versions.

    FILE becomes a TFRecord of PredictionLog: give it to model_publish --golden, or put it into an
    export as assets.extra/tf_serving_warmup_requests. In a file that is there already, the same
    request gets its new answer, and other records stay.
    """
    if not image and not request:
        raise typer.BadParameter("give --image or --json, as often as there are requests")
    cluster = Cluster(kubeconfig, context, namespace)
    model = cluster.model(name)
    asked = model.status.model.active_version if version is None else version
    if asked is None:
        raise AnswerError(
            f"no version of {name} answers yet; see kubectl inferencemodel why {name}"
        )
    servers = Servers(cluster, model, asked, via)
    known = servers.described()
    bodies = [
        *(predictions.picture(known, read_file(path), signature=signature) for path in image or ()),
        *(read_file(path) for path in request or ()),
    ]
    made = []
    for number, body in enumerate(bodies, 1):
        question = recording.asked(known, body)
        found = recording.record(known, model.served_name, question, servers.ask(question.body))
        for odd in found.odd:
            output.tell(f"record {number}: the output {odd} holds NaN or an infinite value")
        made.append(found.content)
    try:
        whole, size = _write(out, made)
    except OSError as error:
        raise AnswerError(f"{out} can't be written: {error.strerror or error}") from error
    if output_ is Output.JSON:
        output.show_json(
            {
                "name": name,
                "version": known.version,
                "file": str(out),
                "answered": len(made),
                "records": whole,
                "bytes": size,
            }
        )
    else:
        told = (
            f"{out}: {whole} records, {size} bytes; {len(made)} requests were answered by version"
            f" {known.version} of {name}"
        )
        output.write(output.line(told) + "\n")


def diff(
    name: Name,
    before: Annotated[
        int, typer.Argument(metavar="VERSION", min=0, max=MAX_VERSION, help="Such as 14.")
    ],
    after: Annotated[
        int, typer.Argument(metavar="VERSION", min=0, max=MAX_VERSION, help="Such as 15.")
    ],
    *,
    output_: As = Output.TABLE,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Put two versions side by side: their interfaces, and how golden requests went.

    Ends with 0 when clients of the first can go on with the second, and with 4 when they can't, or
    golden requests of the second failed.
    """
    cluster = Cluster(kubeconfig, context, namespace)
    model, reports = cluster.model(name), Reports(cluster)
    told = reports.of(cluster.all_pods(name))
    if not told:
        why = reports.problem or f"{name} has no pods"
        raise AnswerError(f"no poller of {name} says what is on its disk: {why}")
    found = comparison.compare(model, told, before, after)
    if output_ is Output.JSON:
        output.show_json(comparison_display.for_programs(found))
    else:
        output.show(comparison_display.render(found))
    raise typer.Exit(Outcome.HOPELESS if found.breaks or found.failed else Outcome.ARRIVED)


class Servers:
    """The replicas that answer with one version."""

    def __init__(self, cluster: Cluster, model: InferenceModel, version: int, via: Via) -> None:
        self._cluster = cluster
        self._model = model
        self._version = version
        self._via = via

    def described(self) -> predictions.Described:
        """What the version takes and gives.

        Raises:
            AnswerError, ClusterError: as `asking.ask`.
        """
        return predictions.described(self._ask("/metadata"))

    def ask(self, body: bytes) -> bytes:
        """What it answers.

        Raises:
            AnswerError, ClusterError: as `asking.ask`.
        """
        return self._ask(":predict", body)

    def _ask(self, path: str, body: bytes | None = None) -> bytes:
        tries = _TRIES if self._model.running is not None else 1
        while True:
            tries -= 1
            try:
                whole = f"/versions/{self._version}{path}"
                return ask(self._cluster, self._model, whole, body, via=self._via)
            except ServerError as error:
                if error.status != 404 or not tries:
                    raise
            time.sleep(_PAUSE_SECONDS)


def _lines(path: Path) -> list[str]:
    try:
        return read_file(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise AnswerError(
            f"{path} is no text in UTF-8 (byte {error.start}); give one name a line"
        ) from None


def _write(out: Path, made: Sequence[bytes]) -> tuple[int, int]:
    """Write records into a file, all of them or none: over those with the same request, or behind.

    Returns:
        How many records, and how many bytes it has then.

    Raises:
        AnswerError: it would not be what a model server and a poller take; says why.
        OSError
    """
    try:
        if out.exists() and out.stat().st_size > records.MAX_BYTES:
            raise ValueError(f"it has more than {records.MAX_BYTES} bytes")
        contents = _merged(out.read_bytes() if out.exists() else b"", made)
    except ValueError as error:
        raise AnswerError(f"{out} is there already, and is left as it is: {error}") from error
    handle, name = tempfile.mkstemp(prefix=f".{out.name}-", dir=out.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            for content in contents:
                file.write(records.framed(content))
        size = Path(name).stat().st_size
        if size > records.MAX_BYTES:
            raise ValueError(f"it would have {size} bytes, more than {records.MAX_BYTES}")
        records.check(Path(name))
        # As any file that a program makes, not as a secret.
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(out)
    except ValueError as error:
        raise AnswerError(f"{out} is not written: {error}") from error
    finally:
        Path(name).unlink(missing_ok=True)
    return len(contents), size


def _merged(before: bytes, made: Sequence[bytes]) -> list[bytes]:
    """The records of a file with new ones, one for each request.

    Raises:
        ValueError: the file holds something else.
    """
    there = [before[place.start : place.stop] for place in records.records(before)]
    found = {recording.request_of(content): content for content in there}
    found |= {recording.request_of(content): content for content in made}
    return list(found.values())
