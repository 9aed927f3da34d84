"""All InferenceModels for as long as somebody looks."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, NoReturn

from kubectl_inferencemodel.errors import PluginError, UnwatchableError
from kubectl_inferencemodel.following import Listed, Pauses, followed

if TYPE_CHECKING:
    from kubectl_inferencemodel.cluster import Cluster
    from kubectl_inferencemodel.following import Key
    from kubectl_inferencemodel.resource import InferenceModel
    from kubectl_inferencemodel.watching import Screen

_REPAINT_SECONDS: Final = 10.0
"""So often ages are shown anew."""
_GATHER_SECONDS: Final = 0.1
"""Changes that come within this time are shown together."""


class Listing:
    """Keeps all models of a place in a thread of its own, and shows them."""

    def __init__(self, cluster: Cluster, *, everywhere: bool, selector: str) -> None:
        self._cluster = cluster
        self._everywhere = everywhere
        self._selector = selector
        self._models: dict[Key, InferenceModel] = {}
        self._is_listed = False
        self._failure: PluginError | None = None
        self._lock = threading.Lock()
        self._changed = threading.Event()

    def show(self, screen: Screen[list[InferenceModel]]) -> NoReturn:
        """Show them until the command is interrupted.

        Raises:
            PluginError: they can't be listed from the beginning, or not watched.
        """
        threading.Thread(target=self._run, daemon=True).start()
        while True:
            self._changed.wait(_REPAINT_SECONDS)
            self._changed.clear()
            with self._lock:
                found = [model for _, model in sorted(self._models.items())]
                is_listed, failure = self._is_listed, self._failure
            if failure is not None and not is_listed:
                raise failure
            if isinstance(failure, UnwatchableError):
                screen.show(found)
                raise failure
            if failure is not None:
                screen.fail(str(failure))
            elif is_listed:
                screen.show(found)
            time.sleep(_GATHER_SECONDS)

    # -- The thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        pauses = Pauses()
        while True:
            begun = time.monotonic()
            try:
                self._follow()
            except PluginError as error:
                with self._lock:
                    self._failure = error
                self._changed.set()
            time.sleep(pauses.after(time.monotonic() - begun))

    def _follow(self) -> None:
        for step in followed(self._cluster, everywhere=self._everywhere, selector=self._selector):
            if step is None:
                continue
            with self._lock:
                if isinstance(step, Listed):
                    for key in self._models.keys() - step.keys:
                        del self._models[key]
                    self._is_listed, self._failure = True, None
                elif step.model is None:
                    self._models.pop(step.key, None)
                else:
                    self._models[step.key] = step.model
            self._changed.set()
