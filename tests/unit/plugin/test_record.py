"""``record`` as a command line, on an API server's double with a model behind it."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import pytest

from kubectl_inferencemodel import answers
from model_poller.model_server import records
from tests.unit.plugin.api import resource
from tests.unit.plugin.views import rollout

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.plugin.api import ApiServer

SIGNATURE = {"inputs": {"x": {"dtype": "DT_STRING"}}, "outputs": {"y": {"dtype": "DT_FLOAT"}}}


class Model:
    """Answers by REST, as version 2 alone."""

    def __init__(self, api: ApiServer) -> None:
        self.api = api
        self.refusals = 0
        self.answer: tuple[int, bytes] = 200, b'{"outputs": [[0.5, 0.25]]}'
        self.asked: list[str] = []

    def __call__(self, path: str) -> tuple[int, bytes]:
        _, found, asked = path.partition(":http/proxy/v1/models/imagenet")
        if not found:
            return self.api.models(path)
        self.asked.append(asked)
        if self.refusals:
            self.refusals -= 1
            return 404, b'{"error": "Servable not found for request: Specific(imagenet, 2)"}'
        if asked == "/versions/2/metadata":
            signatures = {"signature_def": {"serving_default": SIGNATURE}}
            told = {"model_spec": {"version": "2"}, "metadata": {"signature_def": signatures}}
            return 200, json.dumps(told).encode()
        return self.answer


@pytest.fixture
def model(api: ApiServer) -> Model:
    made = Model(api)
    api.answer = made
    return made


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8")
    return tmp_path / "photo.jpg"


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    (tmp_path / "request.json").write_text('{"instances": ["text"]}')
    return tmp_path / "request.json"


def test_requests_and_answers_become_a_file_that_pollers_take(
    model: Model, shell: Any, tmp_path: Path, photo: Path, request_file: Path
) -> None:
    out = tmp_path / "golden"
    files = [f"--image={photo}", f"--image={photo}", f"--json={request_file}"]
    code, printed, err = shell("record", "imagenet", *files, f"--out={out}")
    assert (code, err) == (0, "")
    size = out.stat().st_size
    assert printed == (
        f"{out}: 2 records, {size} bytes; 3 requests were answered by version 2 of imagenet\n"
    )
    assert model.asked == ["/versions/2/metadata", *["/versions/2:predict"] * 3]
    assert records.check(out) == 2
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_same_request_gets_its_new_answer_and_others_stay(
    model: Model, shell: Any, tmp_path: Path, photo: Path, request_file: Path
) -> None:
    out = tmp_path / "golden"
    assert shell("record", "imagenet", f"--image={photo}", f"--out={out}")[0] == 0
    first = out.read_bytes()
    out.write_bytes(records.framed(b"2\x02\x0a\x00") + first)
    model.answer = 200, b'{"outputs": [[0.75, 0.25]]}'
    both = [f"--image={photo}", f"--json={request_file}"]
    code, printed, _ = shell("record", "imagenet", *both, f"--out={out}", "-ojson")
    assert code == 0
    told = json.loads(printed)
    assert (told["answered"], told["records"], told["version"]) == (2, 3, 2)
    assert told["bytes"] == out.stat().st_size
    assert records.check(out) == 2
    whole = out.read_bytes()
    assert whole.startswith(records.framed(b"2\x02\x0a\x00"))
    old, new = struct.pack("<2f", 0.5, 0.25), struct.pack("<2f", 0.75, 0.25)
    assert old in first
    assert (whole.count(old), whole.count(new)) == (0, 2)


@pytest.mark.parametrize(
    "answer",
    [
        (400, b'{"error": "no op Foo"}'),
        (200, b'{"error": "no op Foo"}'),
        (200, b'{"outputs": "no op Foo"}'),
    ],
)
def test_answers_with_errors_are_not_recorded(
    model: Model, shell: Any, tmp_path: Path, photo: Path, answer: tuple[int, bytes]
) -> None:
    model.answer = answer
    out = tmp_path / "golden"
    code, printed, err = shell("record", "imagenet", f"--image={photo}", f"--out={out}")
    assert (code, printed) == (1, "")
    assert err.startswith("error: ")
    assert not out.exists()


def test_values_that_are_no_numbers_are_told(
    model: Model, shell: Any, tmp_path: Path, photo: Path
) -> None:
    model.answer = 200, b'{"outputs": [NaN]}'
    code, _, err = shell("record", "imagenet", f"--image={photo}", f"--out={tmp_path / 'golden'}")
    assert code == 0
    assert err == "record 1: the output y holds NaN or an infinite value\n"


def test_what_is_no_file_of_records_is_left_as_it_is(
    model: Model, shell: Any, tmp_path: Path, photo: Path
) -> None:
    out = tmp_path / "golden"
    out.write_bytes(b"my thesis, the only copy")
    code, _, err = shell("record", "imagenet", f"--image={photo}", f"--out={out}")
    assert code == 1
    assert "is there already, and is left as it is: record 1 does not begin" in err
    assert out.read_bytes() == b"my thesis, the only copy"
    code, _, err = shell("record", "imagenet", f"--image={photo}", "--out=/nowhere/golden")
    assert code == 1
    assert "/nowhere/golden can't be written: No such file" in err


def test_no_more_records_than_a_model_server_takes(
    model: Model, shell: Any, tmp_path: Path, photo: Path, request_file: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(records, "MAX_RECORDS", 1)
    out = tmp_path / "golden"
    files = [f"--image={photo}", f"--json={request_file}"]
    code, _, err = shell("record", "imagenet", *files, f"--out={out}")
    assert code == 1
    assert "it has more than 1 records" in err
    assert not out.exists()


def test_no_more_bytes_than_a_poller_takes(
    model: Model, shell: Any, tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "golden"
    command = ["record", "imagenet", f"--image={photo}", f"--out={out}"]
    monkeypatch.setattr(records, "MAX_BYTES", 20)
    assert "is not written: it would have" in shell(*command)[2]
    assert not out.exists()
    out.write_bytes(b"x" * 21)
    assert "is left as it is: it has more than 20 bytes" in shell(*command)[2]
    assert out.read_bytes() == b"x" * 21


def test_in_a_rollout_it_asks_until_a_replica_of_the_version_answers(
    model: Model, api: ApiServer, shell: Any, tmp_path: Path, photo: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(answers, "_PAUSE_SECONDS", 0.0)
    model.refusals = 3
    command = ["record", "imagenet", f"--image={photo}", f"--out={tmp_path / 'golden'}"]
    assert shell(*command)[0] == 1
    running = {"activeVersion": 2, "targetVersion": 3, "rollout": rollout("Paused")}
    api.objects = [resource(model=running)]
    assert shell(*command)[0] == 0


def test_without_a_version_that_answers_there_is_nothing_to_record(
    model: Model, api: ApiServer, shell: Any, tmp_path: Path, photo: Path
) -> None:
    api.objects = [resource(model={})]
    code, _, err = shell("record", "imagenet", f"--image={photo}", f"--out={tmp_path / 'golden'}")
    assert code == 1
    assert "no version of imagenet answers" in err
    assert shell("record", "imagenet", f"--out={tmp_path / 'golden'}")[0] == 2
