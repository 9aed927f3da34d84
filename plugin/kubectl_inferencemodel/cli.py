"""The command line.

Exit codes: 0 done, 1 an error that the message explains, 2 wrong usage, 130 interrupted, 141 the
reader of the output has gone; ``wait`` adds 3 (the time is up) and 4 (it will not come by waiting).
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path  # typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Final, NoReturn, TypeVar

import typer
from rich.text import Text

from kubectl_inferencemodel import answers, delivery, display, output, predictions, shells
from kubectl_inferencemodel.arguments import (
    MAX_VERSION,
    As,
    Context,
    Kubeconfig,
    Name,
    Namespace,
    Output,
    Selector,
    Timeout,
    Until,
    Via,
    Watch,
    command_first,
)
from kubectl_inferencemodel.arrival import Goal
from kubectl_inferencemodel.asking import ask, read_file
from kubectl_inferencemodel.cluster import Cluster
from kubectl_inferencemodel.errors import AnswerError, PluginError
from kubectl_inferencemodel.explanation import explain, settled
from kubectl_inferencemodel.listing import Listing
from kubectl_inferencemodel.picture import Reports
from kubectl_inferencemodel.ui import ui
from kubectl_inferencemodel.waiting import Follower, until
from kubectl_inferencemodel.watching import Form, Screen, polled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kubectl_inferencemodel.explanation import Explanation
    from kubectl_inferencemodel.resource import InferenceModel

V = TypeVar("V")
INTERRUPTED: Final = 130
READER_GONE: Final = 141
"""As a shell tells of a program that a signal ended: SIGINT, SIGPIPE."""
DEBUG: Final = "KUBECTL_INFERENCEMODEL_DEBUG"
"""The environment variable that brings tracebacks back."""
_NEW_OBJECTS: Final = 10_000
"""So many containers more than before start a search for garbage. Python's 700 are those of a few
objects of a list, and each search now and then goes through all that the imports made."""
_UsageError: type[BaseException] = typer.BadParameter.__mro__[2]
"""What every wrong usage is; typer's own copy of click has no public name for it."""

app = typer.Typer(
    name="kubectl inferencemodel",
    help="What InferenceModels serve, what they wait for, and what a model answers.",
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _tell_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        output.write(f"{version('inferencemodel')}\n")
        raise typer.Exit


@app.callback()
def plugin(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_tell_version, is_eager=True, help="Print the plugin's version."
        ),
    ] = False,
) -> None:
    """What stands in front of every command."""


@app.command("list")
def list_models(
    *,
    namespace: Namespace = None,
    all_namespaces: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="Those of every namespace.")
    ] = False,
    selector: Selector = "",
    watch: Watch = False,
    output_: As = Output.TABLE,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """All InferenceModels, and which replicas answer with which version."""
    cluster = Cluster(kubeconfig, context, namespace)
    none = "no InferenceModels " + (
        "in any namespace" if all_namespaces else f"in namespace {cluster.namespace}"
    )
    if watch:
        screen: Screen[list[InferenceModel]] = Screen(
            Form(
                render=lambda found: (
                    display.fitting(found, _now(), screen.room, namespaces=all_namespaces)
                    if found
                    else Text(none)
                ),
                lines=lambda found: display.lines(found, namespaces=all_namespaces),
                objects=lambda found: {_key(model): _summary(model) for model in found},
                gone=_gone,
            ),
            as_json=output_ is Output.JSON,
        )
        with screen:
            Listing(cluster, everywhere=all_namespaces, selector=selector).show(screen)
    found = cluster.models(everywhere=all_namespaces, selector=selector)
    if output_ is Output.JSON:
        output.show_json([_summary(model) for model in found])
    elif not found:
        output.tell(none)
    else:
        output.show(display.models(found, _now(), namespaces=all_namespaces))


@app.command()
def why(
    name: Name,
    *,
    watch: Watch = False,
    namespace: Namespace = None,
    output_: As = Output.TABLE,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """What NAME is waiting for, in words."""
    cluster = Cluster(kubeconfig, context, namespace)
    reports = Reports(cluster)

    def look() -> Explanation:
        model, pods = cluster.model(name), cluster.pods(name)
        of = model.status.model
        is_coming = not settled(model) or of.latest_version != of.target_version
        asked = cluster.all_pods(name) if is_coming else ()
        return explain(model, pods, reports.of(asked, of.target_version))

    form = Form(
        render=display.explanation,
        lines=display.explanation_lines,
        objects=lambda found: {name: found},
    )
    _show(look, form, as_json=output_ is Output.JSON, watch=watch)


@app.command()
def versions(
    name: Name,
    *,
    watch: Watch = False,
    namespace: Namespace = None,
    output_: As = Output.TABLE,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """The versions that are known, where each of them is, and how the last changes went."""
    cluster = Cluster(kubeconfig, context, namespace)
    form = Form(
        render=display.versions,
        lines=display.version_lines,
        objects=lambda model: {name: model.status.model},
        gone=lambda version: (f"version {version}: gone", None),
    )
    _show(lambda: cluster.model(name), form, as_json=output_ is Output.JSON, watch=watch)


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


@app.command()
def wait(
    name: Name,
    *,
    version: Annotated[
        int | None,
        typer.Option(min=0, max=MAX_VERSION, help="The version; without it, whatever is wanted."),
    ] = None,
    until_: Until = None,
    timeout: Timeout = "5m",  # type: ignore[assignment]  # typer parses a default like what is typed
    output_: As = Output.TABLE,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Wait until every replica answers with a version, or until a step of its rollout is reached.

    Ends with 0 when it does, with 3 when the time is up, and with 4 as soon as it is known that
    waiting does not help: the version is taken back or quarantined, another one is pinned, or a
    newer one came.
    """
    cluster = Cluster(kubeconfig, context, namespace)
    arrival = until(Follower(cluster, name, Goal(version, until_)).look, timeout)
    told = {"name": name, "version": version, **({"step": until_} if until_ else {})}
    delivery.finish(arrival, told, output_=output_, timeout=timeout)


for command in (
    delivery.rollout,
    delivery.promote,
    delivery.abort,
    delivery.retry,
    delivery.approve,
    delivery.pause,
    delivery.resume,
    answers.record,
    answers.diff,
    ui,
):
    app.command()(command)


def _show(look: Callable[[], V], form: Form[V], *, as_json: bool, watch: bool) -> None:
    """Show what one look finds, or for as long as somebody looks."""
    if watch:
        with Screen(form, as_json=as_json) as screen:
            polled(look, screen)
        return
    found = look()
    if as_json:
        (told,) = form.objects(found).values()
        output.show_json(told)
    else:
        output.show(form.render(found))


def _now() -> datetime:
    return datetime.now(UTC)


def _key(model: InferenceModel) -> str:
    return f"{model.metadata.namespace}/{model.metadata.name}"


def _gone(key: str) -> tuple[str, object]:
    namespace, _, name = key.partition("/")
    return f"{name} is deleted", {"namespace": namespace, "name": name, "deleted": True}


def _lines(path: Path) -> list[str]:
    try:
        return read_file(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise AnswerError(
            f"{path} is no text in UTF-8 (byte {error.start}); give one name a line"
        ) from None


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
        "rollout": of.rollout.phase if of.rollout else None,
        "versions": {str(v.version): v.replicas for v in of.versions if v.replicas},
        "url": model.status.url or None,
    }


@app.command()
def completion(
    shell: Annotated[shells.Shell, typer.Argument(help="Which one.", show_default=False)],
) -> None:
    """Print a script by which a shell completes commands, options and the cluster's names."""
    output.write(shells.SCRIPTS[shell])


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line, and end the process."""
    gc.set_threshold(_NEW_OBJECTS)
    given = sys.argv[1:] if arguments is None else arguments
    # kubectl asks what may come next by the name of the program.
    asks = Path(sys.argv[0]).name.startswith(shells.PROGRAM)
    sys.exit(run([shells.WORD, *given] if asks else given))


def run(arguments: Sequence[str]) -> int:
    """Run the command line; what goes wrong is one line on standard error.

    Returns:
        The exit code.
    """
    output.prepare()
    try:
        if list(arguments[:1]) == [shells.WORD]:
            output.write(shells.answer(arguments[1:], app))
            return 0
        code = app(
            command_first(arguments) or ["--help"],
            prog_name="kubectl inferencemodel",
            standalone_mode=False,
        )
    except output.ReaderGoneError:
        output.silence()
        return READER_GONE
    except KeyboardInterrupt:
        return _interrupted()
    except _UsageError as error:
        output.tell(f"error: {_usage(error)}")
        return 2
    except PluginError as error:
        output.tell(f"error: {error}")
        return 1
    except OSError as error:
        output.tell(f"error: the answer can't be printed: {error.strerror or error}")
        output.silence()
        return 1
    except Exception as error:  # noqa: BLE001  # the last place before a traceback
        if os.environ.get(DEBUG):
            traceback.print_exc()
        output.tell(
            f"error: a fault of this program, {type(error).__name__}: {error}; please report it,"
            f" with what {DEBUG}=1 prints"
        )
        return 1
    if code == INTERRUPTED:
        return _interrupted()
    return code if isinstance(code, int) else 0


def _interrupted() -> int:
    output.tell("interrupted")
    return INTERRUPTED


def _usage(error: BaseException) -> str:
    words = getattr(error, "format_message", error.__str__)()
    context = getattr(error, "ctx", None)
    return f"{words} (see {context.command_path} --help)" if context else str(words)
