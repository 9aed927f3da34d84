"""What the server answers, independent of gRPC and REST: a core and its inference together."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from development_model_server.errors import Code, ServingError, invalid_argument
from development_model_server.protos import (
    ClassificationRequest,
    ClassificationResponse,
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    GetModelStatusResponse,
    ModelSpec,
    MultiInferenceRequest,
    MultiInferenceResponse,
    PredictRequest,
    PredictResponse,
    RegressionRequest,
    RegressionResponse,
    ReloadConfigRequest,
    ReloadConfigResponse,
    SignatureDefMap,
    StatusProto,
)

if TYPE_CHECKING:
    from development_model_server.core import ServerCore
    from development_model_server.inference import Inference
    from development_model_server.saved_model import SavedModel

_logger = logging.getLogger(__name__)


class Api:
    """Answers every request of the two services. All methods raise ServingError."""

    def __init__(self, core: ServerCore[SavedModel], inference: Inference) -> None:
        self.core = core
        self.inference = inference
        self.metrics = inference.metrics

    def predict(self, request: PredictRequest, timeout_ms: int = 0) -> PredictResponse:
        """Run a signature on tensors."""
        _require_spec(request)
        with self.core.lend(request.model_spec) as (servable, model):
            return self.inference.predict(model, servable.version, request, timeout_ms)

    def classify(
        self, request: ClassificationRequest, timeout_ms: int = 0
    ) -> ClassificationResponse:
        """Run a classification signature on examples."""
        _require_spec(request)
        with self.core.lend(request.model_spec) as (servable, model):
            return self.inference.classify(model, servable.version, request, timeout_ms)

    def regress(self, request: RegressionRequest, timeout_ms: int = 0) -> RegressionResponse:
        """Run a regression signature on examples."""
        _require_spec(request)
        with self.core.lend(request.model_spec) as (servable, model):
            return self.inference.regress(model, servable.version, request, timeout_ms)

    def multi_inference(
        self, request: MultiInferenceRequest, timeout_ms: int = 0
    ) -> MultiInferenceResponse:
        """Run several signatures of one model on the same examples."""
        spec = request.tasks[0].model_spec if request.tasks else ModelSpec()
        with self.core.lend(spec) as (servable, model):
            return self.inference.multi_inference(model, servable.version, request, timeout_ms)

    def model_metadata(self, request: GetModelMetadataRequest) -> GetModelMetadataResponse:
        """Tell a model's signatures."""
        _require_spec(request)
        if not request.metadata_field:
            raise invalid_argument(
                "GetModelMetadataRequest must specify at least one metadata_field"
            )
        for name in request.metadata_field:
            if name != "signature_def":
                raise invalid_argument(f"Metadata field {name} is not supported")
        response = GetModelMetadataResponse()
        with self.core.lend(request.model_spec) as (servable, model):
            signatures = SignatureDefMap()
            for name, signature in model.signatures.items():
                signatures.signature_def[name].CopyFrom(signature)
        response.model_spec.name = servable.name
        response.model_spec.version.value = servable.version
        response.metadata["signature_def"].Pack(signatures)
        return response

    def model_status(self, request: GetModelStatusRequest) -> GetModelStatusResponse:
        """Tell the states of a model's versions."""
        _require_spec(request)
        spec = request.model_spec
        version = spec.version.value if spec.HasField("version") else None
        response = GetModelStatusResponse()
        for state in self.core.status(spec.name, version):
            entry = response.model_version_status.add(
                version=state.id.version, state=int(state.state)
            )
            _fill_status(entry.status, state.error)
        return response

    def reload_config(
        self, request: ReloadConfigRequest
    ) -> tuple[ReloadConfigResponse, ServingError | None]:
        """Take a new configuration; the response tells the outcome even when it is an error."""
        before = {name: self.metrics.value(name) for name in request.metric_names}
        failure = None
        try:
            self._reload(request)
        except ServingError as error:
            _logger.error("ReloadConfig failed: %s", error.message)  # noqa: TRY400 - the message says it all
            failure = error
        response = ReloadConfigResponse()
        _fill_status(response.status, failure)
        for name, value in before.items():
            response.metric.add(name=name, int64_value_increase=self.metrics.value(name) - value)
        return response, failure

    def _reload(self, request: ReloadConfigRequest) -> None:
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid_argument(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only"
                " ModelConfigList is currently supported"
            )
        for index, model in enumerate(request.config.model_config_list.config):
            _logger.info(
                "\nConfig entry\n\tindex : %d\n\tpath : %s\n\tname : %s\n\tplatform : %s",
                index,
                model.base_path,
                model.name,
                model.model_platform,
            )
        self.core.reload_config(request.config)


def _require_spec(
    request: PredictRequest
    | ClassificationRequest
    | RegressionRequest
    | GetModelMetadataRequest
    | GetModelStatusRequest,
) -> None:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")


def _fill_status(status: StatusProto, error: ServingError | None) -> None:
    status.error_code = int(error.code if error else Code.OK)
    status.error_message = error.message if error else ""
