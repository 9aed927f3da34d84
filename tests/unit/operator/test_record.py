from __future__ import annotations

import json
from typing import Any

import pytest

from inferencemodel_operator.errors import InvalidRecordError
from inferencemodel_operator.record import (
    ActiveVersion,
    QuarantinedVersion,
    VersionsRecord,
    WorkingTemplate,
)

BROKEN = QuarantinedVersion(
    version=16, fingerprint="a1b2", reason="LoadFailed", message="no such op: Foo"
)


@pytest.mark.parametrize(
    "record",
    [
        VersionsRecord(),
        VersionsRecord(target=0),
        VersionsRecord(target=2**63 - 1),
        VersionsRecord(target=15, quarantined=(BROKEN,)),
        VersionsRecord(target=15, served=(15, 9)),
        VersionsRecord(
            active=ActiveVersion(15, "a1b2"),
            source="gs://models/m",
            store="endpoint=http://minio:9000",
            templates=(WorkingTemplate("5d8f", (15, 9)), WorkingTemplate("77c", (15,))),
        ),
    ],
)
def test_a_record_is_read_back_as_it_was_written(record: VersionsRecord) -> None:
    assert VersionsRecord.from_config_map(record.to_data()) == record


@pytest.mark.parametrize(
    ("store", "known"),
    [("default", True), ("", True), ("region=eu", False)],
    ids=["the same", "by an older release", "another"],
)
def test_what_is_known_of_the_same_uri_on_another_server_is_nothing(
    store: str, *, known: bool
) -> None:
    record = VersionsRecord(target=15, source="gs://models/m", store=store)
    assert record.about("gs://models/m", "default") == (record if known else VersionsRecord())


def quarantined(count: int = 1, **fields: str) -> str:
    entry = {"version": 16, "fingerprint": "a1b2", "reason": "LoadFailed", **fields}
    return json.dumps([entry] * count)


@pytest.mark.parametrize("data", [None, {}])
def test_a_config_map_without_data_is_an_empty_record(data: dict[str, str] | None) -> None:
    assert VersionsRecord.from_config_map(data) == VersionsRecord()


def test_an_unknown_target_is_absent_so_that_a_pod_sees_none() -> None:
    assert "target" not in VersionsRecord().to_data()


def test_the_target_is_decimal_as_the_poller_reads_it() -> None:
    assert VersionsRecord(target=15).to_data()["target"] == "15"


def test_the_data_does_not_depend_on_the_order_of_quarantining() -> None:
    other = QuarantinedVersion(version=3, fingerprint="c", reason="BadArchive")
    one = VersionsRecord(quarantined=(BROKEN, other)).to_data()
    assert one == VersionsRecord(quarantined=(other, BROKEN)).to_data()


def rollout(**fields: Any) -> str:
    steps = [{"replicas": "1"}, {"replicas": "100%"}]
    return json.dumps({"version": 2, "started": "2026-01-01T00:00:00Z", "steps": steps, **fields})


def test_a_rollout_that_runs_is_read() -> None:
    text = rollout(phase="Progressing", step=2, settled="2026-01-01T00:00:01Z")
    assert VersionsRecord.from_config_map({"rollout.json": text}).rollout is not None


def test_a_field_of_a_later_release_is_ignored() -> None:
    text = '[{"version": 16, "fingerprint": "a1b2", "reason": "LoadFailed", "since": "now"}]'
    record = VersionsRecord.from_config_map({"quarantined.json": text})
    assert [entry.version for entry in record.quarantined] == [16]


@pytest.mark.parametrize(
    "data",
    [
        {"target": "latest"},
        {"target": ""},
        {"target": "-1"},
        {"target": "1.5"},
        {"target": "²"},
        {"target": str(2**63)},
        {"target": "9" * 5000},
        {"served": "2,x"},
        {"active": "x"},
        {"templates.json": "[1]"},
        {"served": "9" * 5000},
        {"quarantined.json": "{"},
        {"quarantined.json": "{}"},
        {"quarantined.json": '[{"version": "16"}]'},
        {"quarantined.json": '[{"later": ' + "[" * 50_000},
        {"quarantined.json": quarantined(reason="no such reason")},
        {"quarantined.json": quarantined(reason="x" * 65)},
        {"quarantined.json": quarantined(message="x" * 1025)},
        {"quarantined.json": quarantined(fingerprint="f" * 600)},
        {"quarantined.json": quarantined(count=65)},
        {"templates.json": json.dumps([["t", list(range(65))]])},
        {"templates.json": json.dumps([[f"t{n}", [1]] for n in range(11)])},
        {"served": ",".join(map(str, range(11)))},
        {"active": "1@" + "f" * 300},
        {"rollout.json": rollout(phase="Progressing", steps=[])},
        {"rollout.json": rollout(phase="Checking", steps=[])},
        {"rollout.json": rollout(phase="Progressing", step=0)},
        {"rollout.json": rollout(phase="Baking", step=3)},
        {"rollout.json": rollout(phase="Progressing", step=-1)},
        {"rollout.json": rollout(phase="Paused", step=1)},
        {"rollout.json": rollout(started="2026-01-01T00:00:00")},
        {"rollout.json": rollout(started="9999-12-31T23:59:59Z")},
        {"rollout.json": rollout(steps=[{"replicas": "1", "pause": 1e300}])},
    ],
)
def test_what_somebody_else_wrote_is_refused_with_the_way_out(data: dict[str, str]) -> None:
    (key,) = data
    with pytest.raises(InvalidRecordError) as refused:
        VersionsRecord.from_config_map(data, name="vision/imagenet-versions")
    assert "vision/imagenet-versions" in str(refused.value)
    assert key in str(refused.value)
    assert "delete the ConfigMap" in str(refused.value)
