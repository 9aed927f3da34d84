"""How fast the poller brings a version, side by side with what else could fetch it.

One storage server on this machine, the same files, every program once in each round, written to
the disk's file system as on a node. There the system keeps what is written in memory, and only the
poller waits until the disk has it: that wait is the disk's own, and is told beside the seconds.
The poller alone compares checksums with the store's and checks the SavedModel.

A virtual machine gives memory that is free for seconds back to its host, and getting it again takes
longer than any of the programs. So each finds memory that was in use a moment ago, and the fastest
rounds are compared: what the host does only ever adds to one.
"""

from __future__ import annotations

import random
import shlex
import shutil
import sys
import tarfile
import tempfile
import zipfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import zstandard

from bench import kserve, measured, poller_idle, poller_plot, record
from bench.poller_s3 import KEYS, S3Server
from demo.console import say, table
from demo.errors import OutcomeError
from demo.storage import Storage
from devcluster import build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_TREE = Path(__file__).parent.parent
_MARKER = "COMPLETE"
# A SavedModel with an empty graph: saved_model_schema_version 1, one meta graph.
_GRAPH = b"\x08\x01\x12\x02\x0a\x00"
_MB = 1_000_000

BRING = "poller, running"
ONCE = "poller --once"
GCLOUD = "gcloud storage cp"
KSERVE = "kserve-storage"
CURL = "curl"
S5CMD = "s5cmd cp"

_GOALS = {
    "large": {GCLOUD: 2.0, KSERVE: 5.0, CURL: 1.3},
    "small": {GCLOUD: 2.0},
    "s3-large": {S5CMD: 1.0},
    "s3-small": {S5CMD: 1.0},
}
"""How many times as long as the running poller the others have to take."""
_GOAL_MEMORY_MB = 80.0
_GOAL_IDLE_MEMORY_MB = 45.0
_GOAL_IDLE_CPU_PERCENT = 0.3


@dataclass(frozen=True)
class Case:
    """A version to fetch, stored at ``gs://models/KEY/``, or ``s3://`` where the key says so."""

    key: str
    title: str
    files: Mapping[str, int]
    """Sizes in bytes by name below the version's folder."""
    suffix: str = ""
    """Of the archive that holds them; empty: they are stored as they are."""

    @property
    def is_s3(self) -> bool:
        """Whether an S3 server has it."""
        return self.key.startswith("s3-")


_LARGE = {f"assets/weights-{i}": size * _MB for i, size in enumerate((400, 400, 200, 7))}
_SMALL = {f"assets/{i // 100:02}/{i:04}": 4000 for i in range(2000)}
_PACKED = {f"assets/weights-{i}": 55 * _MB for i in range(4)}
CASES = (
    Case("large", "1 GB: 400, 400, 200 and 7 MB, and 2 tiny files", _LARGE),
    Case("small", "2,000 files of 4 kB", _SMALL),
    Case("zip", "220 MB in a .zip", _PACKED, ".zip"),
    Case("zst", "220 MB in a .tar.zst", _PACKED, ".tar.zst"),
    Case("s3-large", "S3: 1 GB: 400, 400, 200 and 7 MB, and 2 tiny files", _LARGE),
    Case("s3-small", "S3: 2,000 files of 4 kB", _SMALL),
)


@dataclass(frozen=True)
class _Servers:
    storage: Storage
    s3: S3Server


def run(rounds: int, idle_seconds: float, only: Sequence[str] = ()) -> None:
    """Measure, print, and keep the figures and their plot; those of ``only`` some cases aren't.

    Raises:
        OutcomeError: a program failed or fetched something else than what is stored.
        ClusterError: a storage server does not run.
    """
    figures: dict[str, object] = {"rounds": rounds}
    missed: list[str] = []
    cases = [case for case in CASES if not only or case.key in only]
    with ExitStack() as stack:
        stored = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (stored / "gs").mkdir()
        servers = _Servers(
            stack.enter_context(Storage(stored / "gs")),
            stack.enter_context(S3Server(stored / "s3")),
        )
        say("uploading what is to be fetched")
        for case in cases:
            _upload(case, servers, scratch)
        for case in cases:
            taken = _measure(case, rounds, servers, scratch)
            figures[case.key] = report(case, taken, missed)
    if not only:
        # On servers of its own: the uploads above are messages that a poller would have to read.
        idle = figures["idle"] = poller_idle.run(idle_seconds)
        missed += _idle_missed(idle)
        figures["imports"] = poller_idle.imports()
        path = record.write("poller", figures)
        say(f"written to {path.relative_to(_TREE)}")
        say(f"drawn in {poller_plot.draw(figures).relative_to(_TREE)}")
    for line in missed:
        say(f"missed: {line}")
    if missed:
        raise OutcomeError(f"{len(missed)} figures were not reached")


def _idle_missed(idle: Mapping[str, float]) -> Iterator[str]:
    memory, cpu, lists = (
        idle[name] for name in ("memory_mb", "cpu_percent_of_a_core", "list_calls")
    )
    if memory > _GOAL_IDLE_MEMORY_MB:
        yield f"idle: {memory} MB, not {_GOAL_IDLE_MEMORY_MB:.0f}"
    if cpu > _GOAL_IDLE_CPU_PERCENT:
        yield f"idle: {cpu} % of a core, not {_GOAL_IDLE_CPU_PERCENT}"
    if lists > idle["seconds"] / idle["poll_interval_seconds"]:
        yield f"idle: {lists:.0f} lists in {idle['seconds']:.0f} s, not one in each poll interval"


def _upload(case: Case, servers: _Servers, scratch: Path) -> None:
    source = random.Random(case.key)  # noqa: S311 - filling
    with tempfile.TemporaryDirectory(dir=scratch) as made:
        model = Path(made, "model")
        for name, size in case.files.items():
            file = model / name
            file.parent.mkdir(parents=True, exist_ok=True)
            # Numbers between 0 and 1, as weights are: they can be packed by about a tenth.
            block = bytearray(source.randbytes(min(size, _MB)))
            if case.suffix:
                block[3::4] = b"\x3e" * len(block[3::4])
            file.write_bytes((block * (size // len(block) + 1))[:size])
        (model / "saved_model.pb").write_bytes(_GRAPH)
        (model / _MARKER).touch()
        files = sorted(path for path in model.rglob("*") if path.is_file())
        if case.is_s3:
            servers.s3.upload(f"{case.key}/1", model)
            return
        bucket = servers.storage.bucket
        if case.suffix:
            bundle = Path(made, f"1{case.suffix}")
            _pack(model, files, bundle)
            bucket.upload(f"{case.key}/{bundle.name}", bundle.read_bytes())
            return
        for file in files:
            bucket.upload(f"{case.key}/1/{file.relative_to(model)}", file.read_bytes())


def _pack(model: Path, files: Sequence[Path], bundle: Path) -> None:
    if bundle.suffix == ".zip":
        with zipfile.ZipFile(bundle, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for file in files:
                archive.write(file, file.relative_to(model))
        return
    packer = zstandard.ZstdCompressor(level=1)
    with (
        bundle.open("wb") as written,
        packer.stream_writer(written) as stream,
        tarfile.open(fileobj=stream, mode="w|") as archive,
    ):
        for file in files:
            archive.add(file, file.relative_to(model))


def _measure(
    case: Case, rounds: int, servers: _Servers, scratch: Path
) -> dict[str, list[measured.Taken]]:
    contenders = _contenders(case, servers)
    taken: dict[str, list[measured.Taken]] = {name: [] for name in contenders}
    say(f"{case.title}: {', '.join(contenders)}; {rounds} rounds")
    wanted = sum(case.files.values()) + len(_GRAPH)
    for _ in range(rounds):
        for name, fetch in contenders.items():
            target = scratch / "fetched"
            target.mkdir()
            _use_memory(scratch, wanted)
            taken[name].append(fetch(target))
            found = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
            # The poller's own notes are small.
            if not 0 <= found - wanted < 10_000:
                raise OutcomeError(f"{name} fetched {found} bytes instead of {wanted}")
            shutil.rmtree(target)
    return taken


def _use_memory(scratch: Path, count: int) -> None:
    piece = bytes(1 << 20)
    for _ in range(2):
        with tempfile.TemporaryFile(dir=scratch) as file:
            for _ in range(count * 5 // 4 // len(piece) + 1):
                file.write(piece)


def _contenders(case: Case, servers: _Servers) -> dict[str, Callable[[Path], measured.Taken]]:
    storage, s3 = servers.storage, servers.s3
    own = {"PYTHONPATH": f"{_TREE}:{_TREE / 'poller'}", **(KEYS if case.is_s3 else {})}
    uri = f"{'s3' if case.is_s3 else 'gs'}://models/{case.key}"
    endpoint = s3.url if case.is_s3 else storage.url

    def bring(target: Path) -> measured.Taken:
        argv = [sys.executable, "-m", "bench.bring", endpoint, uri, str(target), _MARKER]
        whole = measured.run(argv, own)
        seconds, synced = map(float, whole.output.split())
        return replace(whole, seconds=seconds - synced, synced_seconds=synced)

    def once(target: Path) -> measured.Taken:
        argv = [
            *(sys.executable, "-m", "model_poller", "--once", "--http-port=0"),
            *(f"--endpoint={endpoint}", f"--storage-uri={uri}", f"--complete-marker={_MARKER}"),
            *("--model-name=model", f"--models-dir={target}"),
            *(() if case.is_s3 else ("--anonymous",)),
        ]
        return measured.run(argv, own)

    found: dict[str, Callable[[Path], measured.Taken]] = {BRING: bring, ONCE: once}
    if case.is_s3:
        program = str(build.ensure(["s5cmd"])["s5cmd"])
        found[S5CMD] = lambda target: measured.run(
            [program, f"--endpoint-url={endpoint}", "cp", f"{uri}/1/*", f"{target}/"], KEYS
        )
        return found
    if case.suffix:
        url = f"{storage.url}/models/{case.key}/1{case.suffix}"
        fetch = f"curl --silent --show-error --fail {shlex.quote(url)}"
        unpack = {
            ".zip": "{} --output 1.zip && unzip -q 1.zip && rm 1.zip",
            ".tar.zst": "{} | tar --extract --zstd",
        }[case.suffix].format(fetch)
        name = f"{CURL}, unzip" if case.suffix == ".zip" else f"{CURL} | tar --zstd"
        found[name] = lambda target: measured.run(
            ["bash", "-o", "pipefail", "-c", f"cd {shlex.quote(str(target))} && {unpack}"], {}
        )
        return found
    if gcloud := shutil.which("gcloud"):
        found[GCLOUD] = lambda target: measured.run(
            [gcloud, "storage", "cp", "--recursive", f"{uri}/1", str(target)],
            {
                "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{storage.url}/storage/v1/",
                "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
                "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
                "CLOUDSDK_CONFIG": str(target.parent / "gcloud"),
                "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false",
                "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
                "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
                "CLOUDSDK_CORE_PROJECT": "development",
            },
        )
    else:
        say(f"{GCLOUD} is not installed")
    python = kserve.python()
    found[KSERVE] = lambda target: measured.run(
        [str(python), "-c", kserve.PROGRAM, f"{uri}/1", str(target)],
        {"STORAGE_EMULATOR_HOST": storage.url, "NO_GCE_CHECK": "true"},
    )
    names = [*case.files, "saved_model.pb", _MARKER]
    lines = "".join(f"{storage.url}/models/{case.key}/1/{name}\n" for name in names)

    def curl(target: Path) -> measured.Taken:
        listed = target.parent / "urls"
        listed.write_text(lines)
        begin = f"{storage.url}/models/{case.key}/"
        each = (
            f"while read -r url; do curl --silent --show-error --fail --create-dirs"
            f' --output {shlex.quote(str(target))}/"${{url#{begin}}}" "$url" || exit 1; done'
        )
        return measured.run(["bash", "-c", f"{each} < {shlex.quote(str(listed))}"], {})

    found[CURL] = curl
    return found


def report(
    case: Case, taken: Mapping[str, Sequence[measured.Taken]], missed: list[str]
) -> dict[str, dict[str, object]]:
    """Print one case, and add to ``missed`` what was not reached; returns what to keep."""
    base = min(run.seconds for run in taken[BRING])
    rows = [("", "FASTEST", "RATIO", "MB/S", "ALL ROUNDS", "CPU", "PEAK MEMORY")]
    figures: dict[str, dict[str, object]] = {}
    for name, runs in taken.items():
        seconds = [run.seconds for run in runs]
        wall, memory = min(seconds), max(run.memory_mb for run in runs)
        cpu = min(run.cpu_seconds for run in runs)
        rate = sum(case.files.values()) / _MB / wall
        rows.append(
            (
                name,
                f"{wall:.2f} s",
                f"{wall / base:.2f}",
                f"{rate:.0f}",
                record.summary(seconds),
                f"{cpu:.2f} s",
                f"{memory:.0f} MB",
            )
        )
        figures[name] = {
            "seconds": [round(value, 3) for value in seconds],
            "fastest_seconds": round(wall, 3),
            "median_seconds": round(median(seconds), 3),
            "ratio": round(wall / base, 2),
            "cpu_seconds": round(cpu, 2),
            "peak_memory_mb": round(memory, 1),
        }
        if name == BRING:
            synced = min(run.synced_seconds for run in runs)
            figures[name]["synced_seconds"] = round(synced, 3)
        goal = _GOALS.get(case.key, {}).get(name, 0.0)
        if wall / base < goal:
            missed.append(f"{case.title}: {name} takes {wall / base:.2f} times as long, not {goal}")
        if name in (BRING, ONCE) and memory > _GOAL_MEMORY_MB:
            missed.append(f"{case.title}: {name} takes {memory:.0f} MB, not {_GOAL_MEMORY_MB:.0f}")
    table(rows)
    say(f"{BRING}: {figures[BRING]['synced_seconds']} s more until the disk has it")
    return figures
