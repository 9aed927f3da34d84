"""Texts that are kept as how they differ from the first of their kind."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import orjson
import pytest

from inferencemodel_operator.children import children
from inferencemodel_operator.observe import deflating
from inferencemodel_operator.record import VersionsRecord
from inferencemodel_operator.settings import Settings
from inferencemodel_operator.spec import decode

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deflating, "_firsts", {})


def _noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 5_000, 8_192, 8_193, 200_000])
def test_a_text_comes_back_whatever_the_first_was(size: int) -> None:
    for first in (b"", b"{}", _noise(300), _noise(20_000)):
        deflating.deflate("Service", first)
        text = _noise(size)
        assert deflating.inflate("Service", deflating.deflate("Service", text)) == text


def test_the_first_itself_comes_back_when_others_have_followed() -> None:
    texts = [orjson.dumps({"number": number, "same": "x" * 1_000}) for number in range(20)]
    kept = [deflating.deflate("Service", text) for text in texts]
    assert [deflating.inflate("Service", each) for each in kept] == texts


def test_equal_texts_give_equal_bytes_before_and_after_the_first() -> None:
    for text in (b"{}", _noise(255), _noise(256)):
        before = deflating.deflate("Service", text)
        deflating.deflate("Service", _noise(4_000))
        assert deflating.deflate("Service", text) == before


def test_kinds_are_apart() -> None:
    one, other = _noise(1_000), _noise(2_000)
    kept = deflating.deflate("Service", one), deflating.deflate("Ingress", other)
    assert deflating.inflate("Service", kept[0]) == one
    assert deflating.inflate("Ingress", kept[1]) == other


def test_children_of_a_second_resource_take_an_eighth_of_their_text() -> None:
    texts = [list(_texts(name)) for name in ("resnet", "a-model-with-a-longer-name")]
    sizes = []
    for ours in texts:
        kept = [len(deflating.deflate(kind, text)) for kind, text in ours]
        sizes.append(sum(kept))
    assert sizes[1] * 8 < sum(len(text) for _, text in texts[1])


def _texts(name: str) -> Iterator[tuple[str, bytes]]:
    model = decode(
        {
            "metadata": {"name": name, "namespace": "default", "uid": f"uid-of-{name}"},
            "spec": {"model": {"storageUri": f"gs://bucket/{name}"}, "replicas": 3},
        }
    )
    for child in children(model, VersionsRecord(), Settings()):
        yield child["kind"], orjson.dumps(child)
