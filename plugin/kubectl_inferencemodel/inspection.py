"""The commands that show what is: all InferenceModels, and what one waits for and has served."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.text import Text

from kubectl_inferencemodel import display, output
from kubectl_inferencemodel.arguments import (
    As,
    Context,
    Kubeconfig,
    Name,
    Namespace,
    Output,
    Selector,
    Watch,
)
from kubectl_inferencemodel.cluster import Cluster
from kubectl_inferencemodel.explanation import explain, settled
from kubectl_inferencemodel.listing import Listing
from kubectl_inferencemodel.picture import Reports
from kubectl_inferencemodel.watching import Form, Screen, polled

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubectl_inferencemodel.explanation import Explanation
    from kubectl_inferencemodel.resource import InferenceModel

V = TypeVar("V")


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
