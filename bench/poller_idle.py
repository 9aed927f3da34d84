"""What a poller takes that has nothing to do, and what each of its imports costs."""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import grpc

from bench import measured, poller_process
from demo.console import say, table
from demo.storage import SUBSCRIPTION, Storage
from model_poller.model_server import _tfs

if TYPE_CHECKING:
    from collections.abc import Iterator

_TREE = Path(__file__).parent.parent
_POLL_SECONDS = 30
_ROUNDS = 3
_SETTLED_SECONDS = 60
"""After its start and its fetch a poller has given back what it needed only for them."""
_FETCHED_BYTES = 100_000_000
_IMPORTS = (
    ("msgspec", "msgspec"),
    ("http.client, ssl", "http.client, ssl"),
    ("prometheus-client", "prometheus_client"),
    ("google-crc32c", "google_crc32c"),
    ("grpcio", "grpc"),
    ("TensorFlow Serving's messages", "model_poller.model_server._tfs"),
    ("the poller itself", "model_poller.main, model_poller.stores.gcs"),
    ("its Pub/Sub client", "model_poller.notifications.pubsub"),
    ("s3", "model_poller.stores.s3"),
    ("s3: awscrt", "awscrt.checksums, awscrt.auth"),
    ("az", "model_poller.stores.az"),
    ("tar.zst: zstandard", "zstandard"),
    (
        "signatures: cryptography",
        "cryptography.hazmat.primitives.asymmetric.ed25519",
    ),
    ("in the process for a token: requests", "requests"),
    ("in the process for a token: google-auth", "google.auth, google.auth.transport.requests"),
    ("in model_publish: google-cloud-storage", "google.cloud.storage"),
)
_IMPORTER = """
import json, sys, time
def memory():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6
told = []
begin = memory()
for line in sys.argv[1:]:
    before, since = memory(), time.perf_counter()
    exec("import " + line)
    told.append((memory() - before, (time.perf_counter() - since) * 1000))
print(json.dumps([begin, told]))
"""


def run(seconds: float) -> dict[str, float]:
    """Leave a poller with storage, Pub/Sub and a model server alone, and see what it takes.

    Raises:
        OutcomeError: it does not start.
    """
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        storage = stack.enter_context(Storage(scratch))
        storage.bucket.upload("idle/1/assets/weights", bytes(_FETCHED_BYTES))
        storage.bucket.upload("idle/1/saved_model.pb", b"\x08\x01\x12\x02\x0a\x00")
        server = stack.enter_context(_model_server())
        poller, port = stack.enter_context(
            poller_process.poller(
                scratch,
                *("--anonymous", f"--endpoint={storage.url}", "--storage-uri=gs://models/idle"),
                *(f"--pubsub-endpoint={storage.pubsub}", f"--pubsub-subscription={SUBSCRIPTION}"),
                *(f"--poll-interval={_POLL_SECONDS}", f"--server-address={server}"),
            )
        )
        say(f"leaving a poller alone for {seconds:.0f} s")
        time.sleep(_SETTLED_SECONDS)
        cpu, lists = measured.cpu_seconds(poller.pid), _lists(port)
        since = time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - since
        figures = {
            "seconds": round(took, 1),
            "poll_interval_seconds": _POLL_SECONDS,
            "memory_mb": round(_memory_mb(poller.pid, "VmRSS"), 1),
            "anonymous_memory_mb": round(_memory_mb(poller.pid, "RssAnon"), 1),
            "peak_memory_mb": round(_memory_mb(poller.pid, "VmHWM"), 1),
            "cpu_percent_of_a_core": round(
                100 * (measured.cpu_seconds(poller.pid) - cpu) / took, 2
            ),
            "list_calls": _lists(port) - lists,
        }
    for name, value in figures.items():
        say(f"{name}: {value:g}")
    return figures


def report(seconds: float) -> None:
    """Print both tables, and keep nothing."""
    run(seconds)
    imports()


def imports() -> dict[str, dict[str, float]]:
    """Megabytes and milliseconds of each import, after those before it."""
    argv = [sys.executable, "-c", _IMPORTER, *(modules for _, modules in _IMPORTS)]
    environment = {"PYTHONPATH": str(_TREE / "poller")}
    told = [json.loads(measured.run(argv, environment).output) for _ in range(_ROUNDS)]
    figures = {"Python": {"mb": round(median(begin for begin, _ in told), 1), "ms": 0.0}}
    for number, (name, _) in enumerate(_IMPORTS):
        figures[name] = {
            "mb": round(median(steps[number][0] for _, steps in told), 1),
            "ms": round(median(steps[number][1] for _, steps in told), 0),
        }
    rows = [("IMPORT", "MEMORY", "TIME")]
    rows += [(name, f"{f['mb']:.1f} MB", f"{f['ms']:.0f} ms") for name, f in figures.items()]
    table(rows)
    return figures


@contextmanager
def _model_server() -> Iterator[str]:
    """Answers that version 1 is AVAILABLE; the address."""
    answer = _tfs.GetModelStatusResponse()
    entry = answer.model_version_status.add()
    entry.version, entry.state = 1, _tfs.ModelVersionStatus.AVAILABLE
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
        lambda *_: answer, response_serializer=_tfs.GetModelStatusResponse.SerializeToString
    )
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "tensorflow.serving.ModelService", {"GetModelStatus": handler}
            ),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


def _lists(port: str) -> float:
    text = poller_process.get(port, "/metrics").decode()
    found = re.search(r'source_requests_total\{kind="list"\} (\S+)', text)
    return float(found[1]) if found else 0.0


def _memory_mb(pid: int, name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M)
    return int(found[1]) * 1024 / 1e6 if found else 0.0
