"""A publisher that is told to end leaves nothing behind: no file, no half of an upload."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import IO, TYPE_CHECKING

import pytest

from model_poller.process.leftovers import held
from model_poller.publishing.ending import EndedError, answer_within, in_threads
from model_poller.publishing.main import main
from model_poller.publishing.publish import FOLDER
from tests.unit.poller.doubles import model
from tests.unit.poller.test_publishing import Bucket, Publication

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from model_poller.stores import StoredObject

PROGRAM = """
import os, pkgutil, signal, sys
path, _, name = sys.argv.pop(1).rpartition(".")
number, after = int(sys.argv.pop(1)), bool(int(sys.argv.pop(1)))
owner = pkgutil.resolve_name(path)
really = getattr(owner, name)

def ended(*arguments, **named):
    if after:
        really(*arguments, **named)
    # Twice: whoever is impatient must not stop the cleaning up.
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)
    return really(*arguments, **named)

setattr(owner, name, ended)
from model_poller.publishing.main import main
sys.exit(main())
"""
POINTS = {
    "while it checks the export": "model_poller.publishing.graph.check",
    "while it packs": "model_poller.publishing.export.seal",
    "while it checks what it packed": "model_poller.checks.version_files.check",
    "while it stores": "model_poller.stores.local_upload._sync_file",
}


def signalled(
    tmp_path: Path, form: str, point: str, number: signal.Signals, *, after: bool = False
) -> subprocess.CompletedProcess[str]:
    for name in ("export", "scratch", "resnet"):
        (tmp_path / name).mkdir(exist_ok=True)
    for name, content in model(b"w" * 300_000).items():
        (tmp_path / "export" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "export" / name).write_bytes(content)
    return subprocess.run(
        [
            *(sys.executable, "-c", PROGRAM, point, str(number.value), str(int(after))),
            *(str(tmp_path / "export"), f"file://{tmp_path}/resnet", f"--format={form}"),
        ],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path), "TMPDIR": str(tmp_path / "scratch")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("form", ["zip", FOLDER])
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_nothing_behind(
    tmp_path: Path, form: str, point: str, number: signal.Signals
) -> None:
    ended = signalled(tmp_path, form, POINTS[point], number)
    assert (ended.returncode, ended.stdout) == (128 + number, ""), ended.stderr
    assert f"ended by {number.name}" in ended.stderr
    assert not list((tmp_path / "scratch").iterdir())
    assert not list((tmp_path / "resnet").iterdir())


@pytest.mark.parametrize("form", ["zip", FOLDER])
def test_what_is_stored_when_a_signal_comes_is_told(tmp_path: Path, form: str) -> None:
    point = "model_poller.publishing.publish.Publisher._verify"
    ended = signalled(tmp_path, form, point, signal.SIGTERM)
    assert (ended.returncode, ended.stdout) == (128 + signal.SIGTERM, "")
    assert f"{tmp_path}/resnet/1{'/' if form == FOLDER else '.zip'} is stored whole" in ended.stderr
    assert "nothing was left behind" not in ended.stderr
    assert not list((tmp_path / "scratch").iterdir())


def test_a_signal_that_comes_when_all_is_done_changes_nothing(tmp_path: Path) -> None:
    """What is published has its number on stdout, and an exit code that says so."""
    (tmp_path / "resnet").mkdir()
    for name, content in model().items():
        (tmp_path / "export" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "export" / name).write_bytes(content)
    program = """
import os, signal, sys
from model_poller.publishing.main import main
code = main()
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    os.kill(os.getpid(), number)
sys.exit(code)
"""
    arguments = [str(tmp_path / "export"), f"file://{tmp_path}/resnet", "--version=1"]
    for expected in ((0, "1\n"), (4, "")):
        ended = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (ended.returncode, ended.stdout) == expected, ended.stderr


@pytest.mark.parametrize(
    ("form", "point"),
    [
        ("zip", "model_poller.stores.local_upload._sync"),
        (FOLDER, "model_poller.stores.local_upload.Path.rename"),
    ],
)
def test_what_a_signal_comes_too_late_for_is_told(tmp_path: Path, form: str, point: str) -> None:
    """The version has its name, and the publisher is not done with it yet."""
    ended = signalled(tmp_path, form, point, signal.SIGTERM, after=form == FOLDER)
    assert (ended.returncode, ended.stdout) == (128 + signal.SIGTERM, "")
    assert f"{tmp_path}/resnet/1{'/' if form == FOLDER else '.zip'} is stored whole" in ended.stderr
    assert "nothing was left behind" not in ended.stderr
    assert [path.name for path in (tmp_path / "resnet").iterdir()] == [
        "1" if form == FOLDER else "1.zip"
    ]


class Ending(Bucket):
    """A bucket over whose last object a signal comes."""

    last = ""
    stored_first = False

    def put_new(
        self, name: str, content: IO[bytes], size: int, *, progress: Callable[[int], None]
    ) -> None:
        if name != self.last or self.stored_first:
            super().put_new(name, content, size, progress=progress)
        if name == self.last:
            raise EndedError(signal.SIGTERM)


@pytest.mark.parametrize(
    ("form", "last", "where"),
    [
        ("zip", "resnet/1.zip", "gs://models/resnet/1.zip"),
        (FOLDER, "resnet/1/DONE", "gs://models/resnet/1/"),
    ],
)
def test_whether_a_store_took_what_a_signal_came_over_is_looked_for(
    tmp_path: Path, form: str, last: str, where: str
) -> None:
    for stored, told in ((True, "is stored whole"), (False, "is not stored; should it appear")):
        bucket = Ending()
        bucket.last, bucket.stored_first = last, stored
        made = Publication(bucket, tmp_path / str(stored), form)
        with pytest.raises(EndedError) as ended:
            made.publish()
        assert ended.value.left == where
        assert f"{where} {told}" in made.told[-1]
        assert not any("a part of" in text for text in made.told)


def test_a_store_that_tells_nothing_when_a_signal_came_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    class Silent(Ending):
        def list(self) -> list[StoredObject]:
            if self.calls:
                release.wait(60)
            return super().list()

    monkeypatch.setattr("model_poller.publishing.publish._LAST_LOOK_SECONDS", 0.1)
    bucket = Silent()
    bucket.last, bucket.stored_first = "resnet/1.zip", True
    made = Publication(bucket, tmp_path, "zip")
    with pytest.raises(EndedError):
        made.publish()
    release.set()
    assert "gs://models/resnet/1.zip may be stored whole" in made.told[-1]


def test_a_question_that_fails_is_not_answered() -> None:
    def fail() -> int:
        raise OSError("broken")

    assert answer_within(60, fail) is None
    assert answer_within(60, lambda: 3) == 3


def aged(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (0, 0), follow_symlinks=False)


@pytest.mark.parametrize("form", ["zip", FOLDER])
def test_what_a_killed_publisher_left_goes_with_the_next_one(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = signalled(tmp_path, form, POINTS["while it stores"], signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    left = [path for name in ("resnet", "scratch") for path in (tmp_path / name).iterdir()]
    assert len(left) == 2
    live = tmp_path / "resnet" / ".9.0123abcd"
    foreign = tmp_path / "resnet" / ".notes"
    for folder in (live, foreign):
        folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    arguments = [str(tmp_path / "export"), f"file://{tmp_path}/resnet", f"--format={form}"]
    assert main([*arguments, "--version=1"]) == 0
    assert all(path.exists() for path in left), "somebody may still write to it"

    for path in (*left, live, foreign):
        aged(path)
    with held(live):
        assert main([*arguments, "--version=2"]) == 0
    assert not any(path.exists() for path in left)
    assert live.exists()
    assert foreign.exists()
    assert not list((tmp_path / "scratch").iterdir())
    assert capsys.readouterr().out == "1\n2\n"


def test_a_failure_of_one_thread_is_not_held_up_by_another() -> None:
    release = threading.Event()

    def work(item: int) -> None:
        if item:
            raise OSError("broken")
        release.wait(60)

    with pytest.raises(OSError, match="broken"):
        in_threads(work, [0, 1, 2], 2)
    release.set()


def test_all_is_done_by_as_many_threads_as_are_worth_it() -> None:
    done: list[int] = []
    in_threads(done.append, range(100), 8)
    assert sorted(done) == list(range(100))
    in_threads(done.append, [], 8)
