"""What a model server will find in an export's graph: what it loads by, and what it answers to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_poller.checks import interface
from model_poller.checks.interface import TAG
from model_poller.errors import BrokenVersionError
from model_poller.status import VersionReason

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class _MetaGraph:
    tags: set[str]
    signatures: set[str]


def check(folder: Path) -> str | None:
    """See whether TF Serving finds a graph in a SavedModel, and something to ask it.

    What can't be read is left to others. Returns what a person should know, if anything.

    Raises:
        BrokenVersionError: it would be refused, or each of its requests.
        OSError
    """
    try:
        with interface.opened(interface.graph_file(folder)) as model:
            graphs = [
                _MetaGraph(interface.tags(graph), {name for name, _ in interface.signatures(graph)})
                for graph in model.all(2, "meta_graphs")
            ]
    except ValueError:
        return None
    for_serving = [graph for graph in graphs if TAG in graph.tags]
    if not for_serving:
        there = " and ".join(_shown(graph.tags) for graph in graphs[:5]) or "no graph"
        raise BrokenVersionError(
            VersionReason.LOAD_FAILED,
            f"could not find meta graph def matching supplied tags: {_shown({TAG})}, which TF"
            f" Serving loads, but {there}; export it for serving, as tf.saved_model.save does",
        )
    if not any(graph.signatures for graph in for_serving):
        raise BrokenVersionError(
            VersionReason.LOAD_FAILED,
            "it has no signatures, so that every request would be refused; export it with"
            " signatures, such as serving_default",
        )
    if not any(graph.tags == {TAG} for graph in for_serving):
        return (
            f"its graph has the tags {_shown(for_serving[0].tags)}: TF Serving needs them as"
            " --saved_model_tags"
        )
    return None


def _shown(tags: set[str]) -> str:
    return "{ " + " ".join(sorted(tag[:50] for tag in tags)) + " }"
