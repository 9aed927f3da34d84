"""The commands about what versions answer: to record it, and to compare it."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from kubectl_inferencemodel import output, predictions, recording
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
from kubectl_inferencemodel.asking import ask, read_file
from kubectl_inferencemodel.cluster import Cluster
from kubectl_inferencemodel.errors import AnswerError, ServerError
from model_poller.model_server import records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubectl_inferencemodel.resource import InferenceModel

_TRIES: Final = 20
_PAUSE_SECONDS: Final = 0.1
"""In the middle of a rollout a Service leads to replicas of either version, one after the other."""


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
    append: Annotated[
        bool, typer.Option("--append", help="Go on in a file that is there already.")
    ] = False,
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
    export as assets.extra/tf_serving_warmup_requests.
    """
    if not image and not request:
        raise typer.BadParameter("give --image or --json, as often as there are requests")
    if out.exists() and not append:
        raise AnswerError(
            f"{out} is there already; name another file, or go on in it with --append"
        )
    cluster = Cluster(kubeconfig, context, namespace)
    model = cluster.model(name)
    asked = model.status.model.active_version if version is None else version
    if asked is None:
        raise AnswerError(
            f"no version of {name} answers yet; see kubectl inferencemodel why {name}"
        )
    servers = _Servers(cluster, model, asked, via)
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
                "added": len(made),
                "records": whole,
                "bytes": size,
            }
        )
    else:
        more = f", {whole} in all" if whole > len(made) else ""
        output.write(
            output.line(
                f"{out}: {len(made)} records{more}, {size} bytes; the answers are those of version"
                f" {known.version} of {name}"
            )
            + "\n"
        )


class _Servers:
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


def _write(out: Path, made: Sequence[bytes]) -> tuple[int, int]:
    """Write records behind those that are in a file, all of them or none.

    Returns:
        How many records, and how many bytes it has then.

    Raises:
        AnswerError: it would not be what a model server and a poller take; says why.
        OSError
    """
    before = out.read_bytes() if out.exists() else b""
    handle, name = tempfile.mkstemp(prefix=f".{out.name}-", dir=out.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(before)
            for content in made:
                file.write(records.framed(content))
        size = Path(name).stat().st_size
        if size > records.MAX_BYTES:
            raise ValueError(f"it would have {size} bytes, more than {records.MAX_BYTES}")
        records.check(Path(name))
        count = sum(1 for _ in records.records(Path(name).read_bytes()))
        # As any file that a program makes, not as a secret.
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(out)
    except ValueError as error:
        raise AnswerError(f"{out} is not written: {error}") from error
    finally:
        Path(name).unlink(missing_ok=True)
    return count, size
