"""A model is asked what it says about a photo, or about what a form has: one version or two."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kubectl_inferencemodel import predictions, recording
from kubectl_inferencemodel.answers import Servers
from kubectl_inferencemodel.arguments import Via
from kubectl_inferencemodel.asking import ask
from kubectl_inferencemodel.console import forms
from kubectl_inferencemodel.console.fleet import bounded
from kubectl_inferencemodel.console.snippets import snippets
from kubectl_inferencemodel.errors import AnswerError, PluginError
from model_poller.model_server import records

if TYPE_CHECKING:
    from kubectl_inferencemodel.cluster import Cluster
    from kubectl_inferencemodel.console.forms import Form
    from kubectl_inferencemodel.predictions import Described, Label
    from kubectl_inferencemodel.resource import InferenceModel

_TOP: Final = 8
"""So many labels are shown."""
_SIDES: Final = 2
"""So many versions are asked at once."""
_JSON: Final = 20_000
"""Characters of an answer that has no labels."""


class Question(msgspec.Struct, frozen=True):
    """What is asked: a photo, or the values of a form."""

    signature: str
    versions: tuple[int, ...]
    """Which are asked; none for whichever answers."""
    photo: bytes | None
    values: dict[str, str] | None


class Answer(msgspec.Struct, frozen=True):
    """What one version says."""

    version: int | None
    labels: tuple[Label, ...] = ()
    text: str = ""
    """The answer as JSON, where it has no labels."""
    problem: str = ""


class Trying:
    """Asks models."""

    def form(self, cluster: Cluster, name: str) -> dict[str, Any]:
        """What the page shows before anything is asked.

        Raises:
            PluginError: nobody answers.
        """
        model = cluster.model(name)
        problem, found = "", []
        try:
            found = forms.forms(_described(cluster, model, None))
        except PluginError as error:
            problem = bounded(str(error), 600)
        return {
            "model": model,
            "forms": found,
            "problem": problem,
            "versions": _answering(model),
        }

    def ask(self, cluster: Cluster, name: str, question: Question) -> dict[str, Any]:
        """What each version says, and how other programs ask the same.

        Raises:
            PluginError: the question can't be asked.
        """
        model = cluster.model(name)
        versions: tuple[int | None, ...] = question.versions[:_SIDES] or (None,)
        with ThreadPoolExecutor(_SIDES) as threads:
            found = list(threads.map(lambda v: _answer(cluster, model, v, question), versions))
        described = _described(cluster, model, versions[0])
        form, body = _request(described, question)
        photo = form.fields[0].name if question.photo is not None else ""
        told = b"{}" if photo else body
        return {
            "answers": found,
            "snippets": snippets(model, form.signature, versions[0], photo=photo, body=told),
        }

    def golden(self, cluster: Cluster, name: str, question: Question) -> tuple[bytes, int]:
        """A golden record of a question and its answer, as a file's bytes, and whose answer it is.

        Raises:
            PluginError: it can't be asked, or not be recorded.
        """
        model = cluster.model(name)
        version = question.versions[0] if question.versions else model.status.model.active_version
        if version is None:
            raise AnswerError(f"no version of {name} answers yet")
        servers = Servers(cluster, model, version, Via.PROXY)
        described = servers.described()
        _, body = _request(described, question)
        asked = recording.asked(described, body)
        found = recording.record(described, model.served_name, asked, servers.ask(asked.body))
        return records.framed(found.content), described.version


def _answering(model: InferenceModel) -> list[int]:
    """The versions that can be asked, newest first."""
    return sorted((v.version for v in model.status.model.versions if v.replicas), reverse=True)


def _described(cluster: Cluster, model: InferenceModel, version: int | None) -> Described:
    if version is not None:
        return Servers(cluster, model, version, Via.PROXY).described()
    return predictions.described(ask(cluster, model, "/metadata", via=Via.PROXY))


def _request(described: Described, question: Question) -> tuple[Form, bytes]:
    form = next((f for f in forms.forms(described) if f.signature == question.signature), None)
    if form is None:
        raise AnswerError(f"version {described.version} has no signature {question.signature!r}")
    if question.photo is not None:
        if not question.photo:
            raise AnswerError("the photo is empty")
        return form, predictions.picture(described, question.photo, signature=form.signature)
    return form, forms.request(form, question.values or {})


def _answer(
    cluster: Cluster, model: InferenceModel, version: int | None, question: Question
) -> Answer:
    try:
        described = _described(cluster, model, version)
        _, body = _request(described, question)
        if version is None:
            content = ask(cluster, model, ":predict", body, via=Via.PROXY)
        else:
            content = Servers(cluster, model, version, Via.PROXY).ask(body)
        (told,) = predictions.read(content)[:1] or [None]
    except PluginError as error:
        return Answer(version, problem=bounded(str(error), 600))
    found = predictions.labels(told)
    if found is None:
        text = json.dumps(told, indent=2, ensure_ascii=False)
        return Answer(described.version, text=text[:_JSON])
    return Answer(described.version, labels=tuple(found[:_TOP]))
