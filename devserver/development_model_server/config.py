"""Configuration files: protocol buffers as text, checked as TensorFlow Serving checks them."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf import text_format

from development_model_server.errors import Code, ServingError, invalid_argument
from development_model_server.storage import (
    AllPolicy,
    LatestPolicy,
    MonitoredModel,
    Policy,
    SpecificPolicy,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from development_model_server.protos import ModelConfig, ModelConfigList

_logger = logging.getLogger(__name__)

PLATFORM = "tensorflow"
_TENSORFLOW_MODEL_TYPE = 1


def read_text_proto(path: str, message_type: Any) -> Any:
    """Read a file that holds one message as text.

    Raises:
        ServingError: NOT_FOUND and its like if the file can't be read, INVALID_ARGUMENT if it is
            no such message; why is logged.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError as error:
        raise ServingError(Code.NOT_FOUND, f"{path}; {error.strerror}") from error
    except PermissionError as error:
        raise ServingError(Code.PERMISSION_DENIED, f"{path}; {error.strerror}") from error
    except OSError as error:
        raise ServingError(Code.FAILED_PRECONDITION, f"{path}; {error.strerror}") from error
    try:
        return text_format.Parse(text, message_type())
    except (text_format.ParseError, UnicodeError) as error:
        _logger.error("Error parsing text-format %s: %s", message_type.DESCRIPTOR.full_name, error)  # noqa: TRY400 - the message says it all
        raise invalid_argument(f"Invalid protobuf file: '{path}'") from error


def platform(model: ModelConfig) -> str:
    """A model's platform, from its field or from the older ``model_type``.

    Raises:
        ServingError: both or neither of the two are set, or the type isn't supported.
    """
    if model.model_type:
        _logger.warning(
            "Deprecated ModelServerConfig::model_type field used. Prefer"
            " ModelServerConfig::model_platform."
        )
        if model.model_platform:
            raise invalid_argument(
                "Illegal setting both ModelServerConfig::model_type (deprecated) and"
                f" ModelServerConfig::model_platform, model name is {model.name}"
            )
        if model.model_type != _TENSORFLOW_MODEL_TYPE:
            raise invalid_argument(
                f"ModelServerConfig::model_type choice {model.model_type} not supported."
            )
        return PLATFORM
    if not model.model_platform:
        raise invalid_argument(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor"
            f" ModelServerConfig::model_platform, model name is {model.name}"
        )
    return str(model.model_platform)


def validate(models: ModelConfigList) -> None:
    """Check names and base paths.

    Raises:
        ServingError: a name comes twice, or a base path is relative.
    """
    seen: set[str] = set()
    for model in models.config:
        if model.name in seen:
            raise invalid_argument(
                f"Illegal to list model {model.name} multiple times in config list"
            )
        seen.add(model.name)
    for model in models.config:
        if not _is_absolute(model.base_path):
            raise invalid_argument(
                f"Expected model {model.name} to have an absolute path or URI; got"
                f" base_path()={model.base_path}"
            )


def _is_absolute(path: str) -> bool:
    return path.startswith("/") or re.match(r"[a-zA-Z][0-9a-zA-Z.]*://", path) is not None


def validate_platforms_unchanged(old: ModelConfigList, new: ModelConfigList) -> None:
    """Check that no model changes its platform.

    Raises:
        ServingError: one does, or one has none.
    """
    before = {model.name: platform(model) for model in old.config}
    for model in new.config:
        if model.name in before and platform(model) != before[model.name]:
            raise invalid_argument(
                f"Illegal to change a model's platform. For model {model.name} platform was"
                f" {before[model.name]} and new platform requested is {platform(model)}"
            )


def validate_platforms_supported(models: ModelConfigList) -> None:
    """Check that every model's platform is the one there is.

    Raises:
        ServingError: one isn't.
    """
    for model in models.config:
        if (requested := platform(model)) != PLATFORM:
            raise invalid_argument(f"Model {model.name} requests unsupported platform {requested}")


def monitored_models(models: ModelConfigList) -> Iterable[MonitoredModel]:
    """What to look for in the file system."""
    for model in models.config:
        yield MonitoredModel(model.name, model.base_path, _policy(model.model_version_policy))


def _policy(proto: Any) -> Policy:
    match proto.WhichOneof("policy_choice"):
        case "all":
            return AllPolicy()
        case "specific":
            return SpecificPolicy(tuple(proto.specific.versions))
        case _:
            return LatestPolicy(proto.latest.num_versions)


def channel_arguments(text: str) -> list[tuple[str, str | int]]:
    """Read ``--grpc_channel_arguments``; a value that looks like an int32 is one.

    Raises:
        ServingError: an element has no ``=``. (TensorFlow Serving reads past the end of its
            memory there.)
    """
    arguments: list[tuple[str, str | int]] = []
    for element in filter(None, text.split(",")):
        key, equals, value = element.partition("=")
        if not equals:
            raise invalid_argument(
                f"--grpc_channel_arguments: element {element!r} has no '='; write key=value"
            )
        value = value.split("=")[0]
        number = re.fullmatch(r"\s*[+-]?[0-9]+\s*", value) and int(value)
        is_int32 = isinstance(number, int) and -(2**31) <= number < 2**31
        arguments.append((key, number if is_int32 and isinstance(number, int) else value))
    return arguments
