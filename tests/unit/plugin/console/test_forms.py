"""Forms from signatures, requests from forms, and code that asks the same."""

from __future__ import annotations

import json
import shlex
import subprocess

import pytest

from kubectl_inferencemodel.console.forms import Kind, forms, request
from kubectl_inferencemodel.console.snippets import snippets
from kubectl_inferencemodel.errors import AnswerError
from kubectl_inferencemodel.predictions import described
from tests.support import shown
from tests.unit.plugin.views import model

KNOWN = described(json.dumps(shown.metadata(3)).encode())
PHOTO, THUMBNAIL = forms(KNOWN)


def test_a_signature_of_one_input_of_bytes_takes_photos() -> None:
    assert (PHOTO.signature, PHOTO.takes_photo) == ("serving_default", True)
    assert not THUMBNAIL.takes_photo


def test_each_input_is_typed_as_what_it_is() -> None:
    found = {field.name: (field.kind, field.says) for field in THUMBNAIL.fields}
    assert found == {
        "limit": (Kind.WHOLE, "int32"),
        "pixels": (Kind.JSON, "float[2, 2]"),
        "threshold": (Kind.FRACTION, "float"),
    }


def test_the_example_of_an_input_has_its_shape() -> None:
    (pixels,) = [field for field in THUMBNAIL.fields if field.name == "pixels"]
    assert json.loads(pixels.example) == [[0.0, 0.0], [0.0, 0.0]]


def test_values_become_a_request_of_one_instance() -> None:
    values = {"limit": "3", "threshold": "0.5", "pixels": "[[1, 2], [3, 4]]"}
    assert json.loads(request(THUMBNAIL, values)) == {
        "signature_name": "thumbnail",
        "instances": [{"limit": 3, "pixels": [[1, 2], [3, 4]], "threshold": 0.5}],
    }


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"limit": "1.5"}, "input limit takes int32; '1.5' is not a number"),
        ({"limit": ""}, "input limit takes int32; an empty field is not a number"),
        ({"limit": "1", "pixels": "[1"}, r"input pixels takes .*; '\[1' is not JSON"),
        ({"limit": "1", "pixels": "[" * 100_000}, "input pixels takes"),
    ],
)
def test_a_value_of_another_type_is_refused_with_the_inputs_name(
    values: dict[str, str], words: str
) -> None:
    with pytest.raises(AnswerError, match=words):
        request(THUMBNAIL, values)


def code(photo: str = "", body: bytes = b"{}", version: int | None = None) -> dict[str, str]:
    found = model(status={"url": "http://models.example/v1/models/imagenet"})
    made = snippets(found, "serving_default", version, photo=photo, body=body)
    return {snippet.title: snippet.text for snippet in made}


@pytest.mark.parametrize("photo", ["image_bytes", 'it\'s "odd"'])
def test_what_is_to_be_copied_is_code(photo: str) -> None:
    found = code(photo, version=3)
    for title in ("Python, REST", "Python, gRPC"):
        compile(found[title], title, "exec")
    assert "/versions/3:predict" in found["curl"]
    assert "version.value = 3" in found["Python, gRPC"]


@pytest.mark.parametrize("photo", ["image_bytes", 'it\'s "odd"'])
def test_curl_sends_the_photo_as_the_rest_api_takes_it(photo: str, tmp_path: object) -> None:
    pipe = code(photo)["curl"].partition("|\n  curl")[0]
    script = f"cd {shlex.quote(str(tmp_path))}; printf cat > photo.jpg; {pipe}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=True, timeout=30)
    assert json.loads(done.stdout) == {
        "signature_name": "serving_default",
        "instances": [{photo: {"b64": "Y2F0"}}],
    }


def test_a_form_is_shown_with_its_values() -> None:
    body = request(THUMBNAIL, {"limit": "3", "threshold": "0.5", "pixels": "[]"})
    found = code(body=body)
    words = shlex.split(found["curl"])
    assert json.loads(words[words.index("--data") + 1]) == json.loads(body)
    compile(found["Python, REST"], "rest", "exec")


def test_without_a_url_it_says_how_to_get_there() -> None:
    made = snippets(model(), "serving_default", None, photo="x", body=b"{}")
    assert "kubectl port-forward -n vision service/imagenet 8501:http" in made[0].text
