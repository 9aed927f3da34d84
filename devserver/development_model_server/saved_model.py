"""A loaded version: its signatures and its session."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from development_model_server import warmup
from development_model_server.errors import Code, ServingError, not_found
from development_model_server.inference import Model
from development_model_server.protos import MetaGraphDef
from development_model_server.storage import list_folder
from development_model_server.tensorflow_c import Session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from development_model_server.inference import Inference, Runner
    from development_model_server.metrics import Metrics
    from development_model_server.servable import ServableId

_logger = logging.getLogger(__name__)


class SavedModel(Model):
    """A SavedModel in memory."""

    def __init__(self, session: Session, runner: Runner) -> None:
        meta_graph = MetaGraphDef.FromString(session.meta_graph)
        super().__init__(dict(meta_graph.signature_def), runner)
        self._session = session

    def close(self) -> None:
        """Free the session; nothing may be running in it."""
        self._session.close()


class Batching(Protocol):
    """Wraps a runner so that concurrent requests become one."""

    def wrap(self, runner: Runner, path: str) -> Runner:
        """Return what to run in place of ``runner``; raises ServingError."""
        ...


class SavedModelLoader:
    """Loads versions and replays their warm-up requests."""

    def __init__(
        self,
        *,
        tags: Sequence[str],
        session_config: bytes,
        metrics: Metrics,
        inference: Inference,
        warmup_iterations: int | None,
        batching: Batching | None,
    ) -> None:
        """Make a loader.

        Args:
            tags: the exact set of tags of the meta graph to load.
            session_config: a serialized ConfigProto.
            metrics: where loads are counted.
            inference: runs the warm-up requests.
            warmup_iterations: how often to replay each of them, None for no warm-up.
            batching: how to batch requests, None for each by itself.
        """
        self._tags = tags
        self._session_config = session_config
        self._metrics = metrics
        self._inference = inference
        self._warmup_iterations = warmup_iterations
        self._batching = batching

    def probe(self, path: str) -> None:
        """Walk through the version's folder, as an estimate of its size does.

        Raises:
            ServingError: it is no folder, or can't be read.
        """
        if not Path(path).exists():
            raise not_found(f"{path} not found")
        folders = [path]
        while folders:
            folder = folders.pop()
            for name in list_folder(folder):
                child = Path(folder, name)
                if child.is_dir():
                    folders.append(str(child))

    def load(self, servable: ServableId, path: str) -> SavedModel:  # noqa: ARG002
        """Load a version and warm it up.

        Raises:
            ServingError: it can't be loaded, or a warm-up request failed.
        """
        session = self._open(path)
        try:
            runner: Runner = session.run
            if self._batching is not None:
                runner = self._batching.wrap(runner, path)
            model = SavedModel(session, runner)
            if self._warmup_iterations is not None:
                warmup.replay(path, model, self._inference, self._metrics, self._warmup_iterations)
        except BaseException:
            session.close()
            raise
        return model

    def _open(self, path: str) -> Session:
        folder = Path(path)
        if (folder / "export.meta").exists():
            raise ServingError(Code.UNIMPLEMENTED, "Session Bundle is deprecated and removed.")
        if not any((folder / name).exists() for name in _SAVED_MODEL_FILES):
            raise not_found(
                "Specified file path does not appear to contain a SavedModel bundle (should have a"
                f" file called `saved_model.pb`)\nSpecified file path: {path}"
            )
        started = time.monotonic()
        try:
            session = Session(path, self._tags, self._session_config)
        except ServingError:
            self._metrics.load_attempt_count.add(path, "fail")
            raise
        self._metrics.load_attempt_count.add(path, "success")
        self._metrics.load_latency.add(path, amount=int((time.monotonic() - started) * 1e6))
        return session


_SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt", "saved_model.cpb")
