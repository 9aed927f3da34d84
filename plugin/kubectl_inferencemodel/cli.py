"""The command line. Exit codes: 0 done, 1 an error that the message explains, 2 wrong usage;
``wait`` adds 3 (the time is up) and 4 (it will not come by waiting).
"""

from __future__ import annotations

import json
import random
import re
import sys
import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from kubectl_inferencemodel import display, predictions
from kubectl_inferencemodel.arrival import Arrival, Outcome, look
from kubectl_inferencemodel.cluster import Cluster
from kubectl_inferencemodel.errors import AnswerError, PluginError, UnavailableError
from kubectl_inferencemodel.explanation import explain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubectl_inferencemodel.resource import InferenceModel

LOOK_SECONDS: Final = 0.5
"""The pause between two looks of ``wait``."""
_PIPE_WIDTH: Final = 1000
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}


class Output(StrEnum):
    """How the answer is printed."""

    TABLE = "table"
    JSON = "json"


class Via(StrEnum):
    """The way to the model server."""

    PROXY = "proxy"
    URL = "url"


app = typer.Typer(
    name="kubectl inferencemodel",
    help="What InferenceModels serve, what they wait for, and what a model answers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The InferenceModel's name.")]
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Default: the context's namespace.")
]
Context = Annotated[str | None, typer.Option(help="The kubeconfig's context to use.")]
Kubeconfig = Annotated[
    Path | None, typer.Option(help="Default: KUBECONFIG, or ~/.kube/config; as with kubectl.")
]
As = Annotated[Output, typer.Option("--output", "-o", help="How to print the answer.")]


def _seconds(text: str) -> float:
    """A duration as kubectl takes it: ``90s``, ``5m``, ``1h30m``, or plain seconds."""
    parts = re.findall(r"(\d+)([smh]?)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise typer.BadParameter(f"{text} is no duration such as 90s, 5m or 1h30m")
    return float(sum(int(number) * _UNITS[unit] for number, unit in parts))


@app.command("list")
def list_models(
    *,
    namespace: Namespace = None,
    all_namespaces: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="Those of every namespace.")
    ] = False,
    output: As = Output.TABLE,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """All InferenceModels, and which replicas answer with which version."""
    cluster = Cluster(kubeconfig, context, namespace)
    found = cluster.models(everywhere=all_namespaces)
    if output is Output.JSON:
        _print_json([_summary(model) for model in found])
    elif not found:
        where = "in any namespace" if all_namespaces else f"in namespace {cluster.namespace}"
        typer.echo(f"no InferenceModels {where}", err=True)
    else:
        now = datetime.now(UTC)
        _console().print(display.models(found, now, namespaces=all_namespaces))


@app.command()
def why(
    name: Name,
    *,
    namespace: Namespace = None,
    output: As = Output.TABLE,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """What NAME is waiting for, in words."""
    cluster = Cluster(kubeconfig, context, namespace)
    found = explain(cluster.model(name), cluster.pods(name))
    if output is Output.JSON:
        _print_json(found)
    else:
        _console().print(display.explanation(found))


@app.command()
def versions(
    name: Name,
    *,
    namespace: Namespace = None,
    output: As = Output.TABLE,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """The versions that are known, where each of them is, and how the last changes went."""
    model = Cluster(kubeconfig, context, namespace).model(name)
    if output is Output.JSON:
        _print_json(model.status.model)
    else:
        _console().print(display.versions(model))


@app.command()
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
    version: Annotated[int | None, typer.Option(help="Ask this version.")] = None,
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
    output: As = Output.TABLE,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Ask NAME about a picture, and print labels and probabilities."""
    if (image is None) == (request is None):
        raise typer.BadParameter("give one of --image and --json")
    names = _read(labels).decode().splitlines() if labels else []
    cluster = Cluster(kubeconfig, context, namespace)
    model = cluster.model(name)
    at = "" if version is None else f"/versions/{version}"
    known = predictions.described(_ask(cluster, model, f"{at}/metadata", via=via))
    if image is not None:
        body = predictions.picture(known, _read(image), signature=signature)
    else:
        body = sys.stdin.buffer.read() if str(request) == "-" else _read(request)
    answers = predictions.read(_ask(cluster, model, f"{at}:predict", body, via=via))
    if output is Output.JSON:
        _print_json({"version": known.version, "predictions": answers})
        return
    console = _console()
    for answer in answers:
        found = predictions.labels(answer, names)
        if found is None:
            console.print_json(data=answer)
        else:
            console.print(display.labels(found[:top]))
    typer.echo(f"by version {known.version} of {name}", err=True)


@app.command()
def wait(
    name: Name,
    *,
    version: Annotated[
        int | None, typer.Option(help="The version; without it, whatever is wanted.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(parser=_seconds, help="Such as 90s or 10m.", metavar="DURATION")
    ] = "5m",  # type: ignore[assignment]  # typer parses a default like what is typed
    output: As = Output.TABLE,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Wait until every replica answers with a version.

    Ends with 0 when it does, with 3 when the time is up, and with 4 as soon as it is known that
    waiting does not help: the version is quarantined, another one is pinned, or a newer one came.
    """
    cluster = Cluster(kubeconfig, context, namespace)
    seen = _wait(cluster, name, version, timeout)
    if output is Output.JSON:
        _print_json(
            {
                "name": name,
                "version": version,
                "outcome": seen.outcome.name.capitalize(),
                "message": seen.message,
            }
        )
    elif seen.outcome is Outcome.ARRIVED:
        typer.echo(seen.message)
    else:
        start = f"not within {timeout:.0f} s" if seen.outcome is Outcome.WAITING else "no"
        typer.echo(f"{start}: {seen.message} (kubectl inferencemodel why {name})", err=True)
    raise typer.Exit(seen.outcome)


def _wait(cluster: Cluster, name: str, version: int | None, timeout: float) -> Arrival:
    """Look until it has arrived, will not, or the time is up; progress goes to stderr."""
    console = Console(stderr=True)
    deadline = time.monotonic() + timeout
    told, failures = "", 0
    with console.status("asking the API server") as spinner:
        while True:
            try:
                seen = look(cluster.model(name), version)
                failures = 0
            except UnavailableError as error:
                # An API server that restarts is waited for like everything else.
                seen = Arrival(Outcome.WAITING, str(error))
                failures += 1
            left = deadline - time.monotonic()
            if seen.outcome is not Outcome.WAITING or left <= 0:
                return seen
            spinner.update(Text(f"{seen.message} ({left:.0f} s left)"))
            if not console.is_terminal and seen.message != told:
                told = seen.message
                typer.echo(told, err=True)
            pause = LOOK_SECONDS * 2 ** min(failures, 4) * random.uniform(0.8, 1.2)  # noqa: S311
            time.sleep(min(pause, left))


def _ask(
    cluster: Cluster, model: InferenceModel, path: str, body: bytes | None = None, *, via: Via
) -> bytes:
    if via is Via.URL:
        if not model.status.url:
            raise AnswerError(f"{model.metadata.name} has no URL in its status yet")
        status, answer = cluster.ask_url(model.status.url + path, body)
    else:
        whole = f"/v1/models/{model.served_name}{path}"
        status, answer = cluster.ask_service(model.metadata.name, whole, body)
    if status != 200:
        raise AnswerError(f"{model.metadata.name} answers {status}: {predictions.problem(answer)}")
    return answer


def _read(path: Path | None) -> bytes:
    try:
        return path.read_bytes() if path is not None else b""
    except OSError as error:
        raise AnswerError(f"{path} can't be read: {error.strerror}") from error


def _summary(model: InferenceModel) -> dict[str, object]:
    of, ready = model.status.model, model.condition("Ready")
    return {
        "namespace": model.metadata.namespace,
        "name": model.metadata.name,
        "activeVersion": of.active_version,
        "targetVersion": of.target_version,
        "latestVersion": of.latest_version,
        "ready": ready.status if ready else None,
        "reason": ready.reason if ready else None,
        "replicas": model.status.replica_summary or None,
        "transitionStatus": of.transition_status or None,
        "versions": {str(v.version): v.replicas for v in of.versions if v.replicas},
        "url": model.status.url or None,
    }


def _print_json(value: object) -> None:
    typer.echo(json.dumps(msgspec.to_builtins(value), indent=2, ensure_ascii=False))


def _console() -> Console:
    """Standard output; as wide as it needs to be where no terminal says otherwise."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PIPE_WIDTH)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line, and end the process."""
    try:
        app(arguments)
    except PluginError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    sys.exit(0)
