"""The server's core: takes configurations, keeps labels, finds the version that a request means.

A configuration is a full list; it is taken as TensorFlow Serving's ``ServerCore::ReloadConfig``
takes it: checked, stored, labels checked, sources changed, and then waited for until every model
that is new has settled. Where a step fails, those before it stay done.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Generic

from development_model_server import config as configuration
from development_model_server.errors import (
    Code,
    ServingError,
    failed_precondition,
    invalid_argument,
    not_found,
)
from development_model_server.manager import Loader, Manager, ManagerOptions, ServableT
from development_model_server.monitor import EventBus, StateMonitor
from development_model_server.protos import ModelServerConfig
from development_model_server.servable import ServableId, ServableRequest, ServableState, State
from development_model_server.storage import FileSystemSource

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from development_model_server.protos import ModelSpec

_logger = logging.getLogger(__name__)
_INITIAL_LOAD_THREADS = 4 * len(os.sched_getaffinity(0))


class ServerCore(Generic[ServableT]):
    """Models by their configuration."""

    def __init__(
        self,
        loader: Loader[ServableT],
        manager_options: ManagerOptions,
        *,
        file_system_poll_wait_seconds: int = 1,
        allow_version_labels_for_unavailable_models: bool = False,
    ) -> None:
        """Make a core without models, its manager running."""
        self._manager_options = manager_options
        self._allow_unavailable_labels = allow_version_labels_for_unavailable_models
        self._bus = EventBus()
        self._monitor = StateMonitor(self._bus)
        self._manager = Manager(loader, self._bus, manager_options)
        self._source = FileSystemSource(file_system_poll_wait_seconds, self._manager.aspire)
        self._source_started = False
        self._config_lock = threading.Lock()
        self._config = ModelServerConfig()
        self._labels: dict[str, dict[str, int]] = {}
        self._manager.start()

    def stop(self) -> None:
        """Stop loading and unloading; what is loaded stays until the process ends."""
        self._manager.stop()

    def reload_config(self, config: ModelServerConfig) -> None:
        """Take a new configuration; returns when every model that is new has settled.

        Raises:
            ServingError: the configuration is refused, or a model that is new doesn't become
                available (the configuration is in force all the same).
        """
        with self._config_lock:
            kind = config.WhichOneof("config")
            present = self._config.WhichOneof("config")
            accepted = (
                present is None
                or self._config == config
                or (present == kind == "model_config_list")
            )
            if not accepted:
                raise failed_precondition(
                    "Cannot transition to requested config. It is only legal to transition from one"
                    " ModelConfigList to another."
                )
            if kind is None:
                _logger.info("Taking no action for empty config.")
                return
            if kind != "model_config_list":
                raise ServingError(
                    Code.UNIMPLEMENTED,
                    "custom_model_config is not available in TensorFlow Serving's binary nor here;"
                    " use model_config_list",
                )
            configuration.validate(config.model_config_list)
            configuration.validate_platforms_unchanged(
                self._config.model_config_list, config.model_config_list
            )
            self._config = config
            self._update_labels()
            _logger.info("Adding/updating models.")
            self._apply_models()
            _logger.info("Finished adding/updating models")
            if any(model.HasField("logging_config") for model in config.model_config_list.config):
                raise invalid_argument("No request-logger-creator provided.")

    def _update_labels(self) -> None:
        labels: dict[str, dict[str, int]] = {}
        for model in self._config.model_config_list.config:
            for label, version in model.version_labels.items():
                if not self._label_allowed(model.name, label, version):
                    raise failed_precondition(
                        f"Request to assign label to version {version} of model {model.name},"
                        " which is not currently available for inference"
                    )
                labels.setdefault(model.name, {})[label] = version
        self._labels = labels

    def _label_allowed(self, model: str, label: str, version: int) -> bool:
        state = self._monitor.version(ServableId(model, version))
        if state is not None and state.state is State.AVAILABLE:
            return True
        bound = self._labels.get(model, {}).get(label)
        return self._allow_unavailable_labels and bound in (None, version)

    def _apply_models(self) -> None:
        models = self._config.model_config_list
        for model in models.config:
            _logger.info(" (Re-)adding model: %s", model.name)
        configuration.validate_platforms_supported(models)
        monitored = list(configuration.monitored_models(models))
        names = {model.name for model in monitored}
        if not self._source_started:
            self._manager.set_num_load_threads(_INITIAL_LOAD_THREADS)
            self._source.update(monitored)
            self._source.start()
            self._source_started = True
            states = self._monitor.wait_until_settled(names)
            self._manager.set_num_load_threads(self._manager_options.num_load_threads)
            _require_available(states, "servable(s)")
            return
        # Of its own, as a model that was dropped before left states behind.
        monitor = StateMonitor(self._bus)
        try:
            new = names - self._source.names
            self._source.update(monitored)
            _require_available(monitor.wait_until_settled(new), "model(s)")
        finally:
            monitor.close()

    def lend(self, spec: ModelSpec) -> AbstractContextManager[tuple[ServableId, ServableT]]:
        """Hold the version that a request means for as long as the request runs.

        Raises:
            ServingError: the spec has no name or an unknown label, or (on entering) no such
                version is available.
        """
        return self._manager.lend(self._request(spec))

    def _request(self, spec: ModelSpec) -> ServableRequest:
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        match spec.WhichOneof("version_choice"):
            case "version":
                return ServableRequest(spec.name, spec.version.value)
            case "version_label":
                version = self._labels.get(spec.name, {}).get(spec.version_label)
                if version is None:
                    raise invalid_argument(
                        f"Unrecognized servable version label: {spec.version_label}"
                    )
                return ServableRequest(spec.name, version)
            case _:
                return ServableRequest(spec.name)

    def status(self, model: str, version: int | None) -> list[ServableState]:
        """The states of a model's versions, or of one of them, the highest first.

        Raises:
            ServingError: NOT_FOUND.
        """
        if version is None:
            states = self._monitor.versions(model)
            if not states:
                raise not_found(f"Could not find any versions of model {model}")
            return states
        state = self._monitor.version(ServableId(model, version))
        if state is None:
            raise not_found(f"Could not find version {version} of model {model}")
        return [state]


def _require_available(states: dict[ServableId, ServableState], what: str) -> None:
    unavailable = [
        states[servable] for servable in sorted(states) if states[servable].state is State.END
    ]
    if not unavailable:
        return
    listed = "".join(
        f"{{{state.id}{f' due to error: {state.error.text}' if state.error else ''}}}, "
        for state in unavailable
    )
    raise ServingError(
        Code.UNKNOWN, f"{len(unavailable)} {what} did not become available: {{{listed}}}"
    )
