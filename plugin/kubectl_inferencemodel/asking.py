"""Questions to the model servers of an InferenceModel, and the files that go into them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from kubectl_inferencemodel import predictions
from kubectl_inferencemodel.arguments import Via
from kubectl_inferencemodel.cluster import MAX_BYTES
from kubectl_inferencemodel.errors import AnswerError, ServerError

if TYPE_CHECKING:
    from pathlib import Path

    from kubectl_inferencemodel.cluster import Cluster
    from kubectl_inferencemodel.resource import InferenceModel


def ask(
    cluster: Cluster, model: InferenceModel, path: str, body: bytes | None = None, *, via: Via
) -> bytes:
    """Ask an InferenceModel's model servers, by a path behind that of the model.

    Raises:
        ServerError: it answers with a refusal.
        AnswerError: nothing can be asked there.
        ClusterError: nobody answers.
    """
    if via is Via.URL:
        if not model.status.url:
            raise AnswerError(f"{model.metadata.name} has no URL in its status yet")
        status, answer = cluster.ask_url(model.status.url + path, body)
    else:
        whole = f"/v1/models/{model.served_name}{path}"
        status, answer = cluster.ask_service(model.metadata.name, whole, body)
    if status != 200:
        problem = predictions.problem(answer)
        raise ServerError(f"{model.metadata.name} answers {status}: {problem}", status)
    return answer


def read_file(path: Path | None) -> bytes:
    """A file, or standard input for ``-``.

    Raises:
        AnswerError: it can't be read, or is too long to be sent.
    """
    try:
        if str(path) == "-":
            content = sys.stdin.buffer.read(MAX_BYTES + 1) if sys.stdin else b""
        elif path is None:
            content = b""
        else:
            with path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) else error
        raise AnswerError(f"{path} can't be read: {words}") from error
    if len(content) > MAX_BYTES:
        raise AnswerError(f"{path} is longer than {MAX_BYTES >> 20} MiB")
    if not content:
        raise AnswerError(f"{path} is empty")
    return content
