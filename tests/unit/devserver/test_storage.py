"""Which versions lie in a base path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from development_model_server.errors import ServingError
from development_model_server.storage import (
    AllPolicy,
    Aspired,
    FileSystemSource,
    LatestPolicy,
    MonitoredModel,
    Policy,
    SpecificPolicy,
    aspired_versions,
    parse_version,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("entry", "version"),
    [
        ("1", 1),
        ("0001", 1),
        ("+5", 5),
        (" 7 ", 7),
        ("20261123080000", 20261123080000),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", None),
        ("v1", None),
        ("1.0", None),
        ("1.tmp", None),
        (".1", None),
        ("lost+found", None),
        ("..data", None),
        ("", None),
        ("\u0661", None),
    ],
)
def test_a_version_is_read_as_a_number(entry: str, version: int | None) -> None:
    assert parse_version(entry) == version


def aspired(base: Path, policy: Policy) -> list[tuple[int, str]]:
    found = aspired_versions(MonitoredModel("m", str(base), policy))
    return [(servable.version, path.removeprefix(f"{base}/")) for servable, path in found]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for name in ("1", "0002", "10", "9", "v3", ".11"):
        (tmp_path / name).mkdir()
    (tmp_path / "4").write_text("a file counts too")
    return tmp_path


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (LatestPolicy(), [(10, "10")]),
        (LatestPolicy(0), [(10, "10")]),
        (LatestPolicy(3), [(10, "10"), (9, "9"), (4, "4")]),
        (AllPolicy(), [(2, "0002"), (1, "1"), (10, "10"), (4, "4"), (9, "9")]),
        (SpecificPolicy((1, 10)), [(1, "1"), (10, "10")]),
        (SpecificPolicy((2, 10)), [(2, "0002"), (10, "10")]),
        (SpecificPolicy((1, 77)), [(1, "1")]),
        (SpecificPolicy((77,)), []),
        (SpecificPolicy(()), []),
    ],
)
def test_the_policy_picks(base: Path, policy: Policy, expected: list[tuple[int, str]]) -> None:
    assert aspired(base, policy) == expected


def test_of_two_names_of_one_number_the_later_one_wins(base: Path) -> None:
    (base / "0010").mkdir()
    assert aspired(base, LatestPolicy()) == [(10, "10")]


def test_a_symbolic_link_is_a_version(base: Path) -> None:
    (base / "12").symlink_to(base / "1")
    assert aspired(base, LatestPolicy()) == [(12, "12")]


def test_a_missing_base_path_is_told(tmp_path: Path) -> None:
    with pytest.raises(ServingError) as caught:
        aspired(tmp_path / "gone", LatestPolicy())
    assert caught.value.text == (
        f"INVALID_ARGUMENT: Could not find base path {tmp_path}/gone for servable m with error"
        f" NOT_FOUND: {tmp_path}/gone not found"
    )


def test_one_missing_base_path_ends_discovery_for_every_model(base: Path) -> None:
    told: list[tuple[str, Aspired]] = []
    source = FileSystemSource(-1, lambda name, versions: told.append((name, versions)))
    source.update([MonitoredModel("a", str(base)), MonitoredModel("b", str(base / "gone"))])
    source.poll()
    assert told == []
    (base / "gone").mkdir()
    source.poll()
    assert [(name, len(versions)) for name, versions in told] == [("a", 1), ("b", 0)]


def test_a_model_that_is_left_out_is_wanted_no_more_at_once(base: Path) -> None:
    told: list[tuple[str, Aspired]] = []
    source = FileSystemSource(-1, lambda name, versions: told.append((name, versions)))
    source.update([MonitoredModel("a", str(base)), MonitoredModel("b", str(base))])
    source.update([MonitoredModel("b", str(base))])
    assert told == [("a", [])]
