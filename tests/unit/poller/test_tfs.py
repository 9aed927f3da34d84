"""The messages without tensorflow are those with it."""

from __future__ import annotations

import json
import subprocess
import sys

_PROBE = """
import json, sys
{before}
from model_poller.model_server._tfs import (
    GetModelStatusRequest, GetModelStatusResponse, ModelVersionStatus)
from google.protobuf import descriptor_pb2
files, seen = [GetModelStatusResponse.DESCRIPTOR.file], {{}}
while files:
    file = files.pop()
    copy = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(copy)
    seen[file.name] = copy.SerializeToString(deterministic=True).hex()
    files += file.dependencies
request = GetModelStatusRequest()
request.model_spec.name = "m"
request.model_spec.version.value = 3
response = GetModelStatusResponse()
entry = response.model_version_status.add(version=3, state=ModelVersionStatus.State.END)
entry.status.error_code, entry.status.error_message = 5, "gone"
print(json.dumps({{
    "files": seen,
    "request": request.SerializeToString().hex(),
    "response": response.SerializeToString().hex(),
    "tensorflow": "tensorflow" in sys.modules,
}}))
{after}
"""


def probe(before: str = "", after: str = "") -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", _PROBE.format(before=before, after=after)],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    answer: dict[str, object] = json.loads(done.stdout.splitlines()[0])
    return answer


def test_messages_are_the_same_with_and_without_tensorflow() -> None:
    without = probe()
    with_it = probe(before="import tensorflow")
    assert (without.pop("tensorflow"), with_it.pop("tensorflow")) == (False, True)
    assert without == with_it


def test_tensorflow_can_still_be_imported_afterwards() -> None:
    probe(
        after="import tensorflow\n"
        "from tensorflow.core.protobuf import error_codes_pb2 as codes\n"
        "assert tensorflow.constant(1) is not None\n"
        "codes.xla_dot_tsl_dot_protobuf_dot_error__codes__pb2.Code\n"
    )
