"""The fleet is of every kind, and its versions are what they are said to be."""

from __future__ import annotations

import pytest
import yaml

from chaos import fleet
from chaos.faults import older_definition
from chaos.fleet import FLEET, Model
from chaos.plan import Quality
from inferencemodel_operator import spec
from tests.support import crd


def test_there_are_twelve_of_every_store_and_of_one_to_five_replicas() -> None:
    assert len({model.name for model in FLEET}) == 12
    assert {model.scheme for model in FLEET} == {"gs", "s3", "az", "http", "pvc"}
    assert {1, 2, 3, 5} == {model.replicas for model in FLEET}
    assert any(model.scaled_to for model in FLEET)
    assert any(model.cached for model in FLEET)
    assert any(model.notified for model in FLEET)


@pytest.mark.parametrize("model", FLEET, ids=lambda model: model.name)
def test_each_is_a_valid_resource(model: Model) -> None:
    made = fleet.manifest(model, {}, f"{model.scheme}://bucket/{model.name}")
    metadata = {**made["metadata"], "uid": "u", "generation": 1}
    read = spec.decode({**made, "metadata": metadata})
    assert read.most_replicas == (model.scaled_to or model.replicas)


GOOD = {2: {"saved_model.pb": b"AddV2 2"}, 3: {"saved_model.pb": b"AddV2 3"}}
UNSIGNED = {"saved_model.pb": b"nothing"}


def test_an_answer_tells_of_which_version_it_is() -> None:
    assert fleet.answer(1) != fleet.answer(2)
    for version in (1, 2, 3):
        files = fleet.entries(GOOD, UNSIGNED, version, Quality.GOOD)
        assert files["saved_model.pb"] == GOOD[fleet.offset(version)]["saved_model.pb"]


def test_every_bad_version_differs_from_the_good_one() -> None:
    good = fleet.entries(GOOD, UNSIGNED, 1, Quality.GOOD)
    for quality in Quality:
        if quality is not Quality.GOOD:
            assert fleet.entries(GOOD, UNSIGNED, 1, quality) != good


def test_an_older_definition_lacks_rules_and_columns_and_keeps_every_field() -> None:
    today = yaml.safe_load(crd.CRD.read_text())
    older = older_definition(today)
    assert "x-kubernetes-validations" in str(today)
    assert "x-kubernetes-validations" not in str(older)
    one, other = (
        each["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        for each in (today, older)
    )
    assert one.keys() == other.keys()
