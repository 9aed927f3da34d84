"""Three pods and what the operator makes of their reports: the target goes up and down no more than
once, whatever lies above the good version, and a pod that is made later has what the others serve.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inferencemodel_operator import versions
from inferencemodel_operator.record import VersionsRecord
from inferencemodel_operator.spec import Model
from model_poller.errors import AccessDeniedError
from tests.unit.poller.doubles import MemorySource, below, graph, model, zipped
from tests.unit.poller.world import TOLD, World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GOOD = below("2", model(b"2"))


class Fleet:
    """Pods that read one bucket, and the operator's decisions."""

    def __init__(self, root: Path, source: MemorySource) -> None:
        self.root = root
        self.source = source
        self.record = VersionsRecord()
        self.targets: list[int | None] = []
        self.pods: list[World] = []

    def add(self) -> None:
        number = len(self.pods)
        self.pods.append(World(self.root / str(number), TOLD, source=self.source))

    def settle(self, turns: int = 15) -> None:
        for _ in range(turns):
            for number, pod in enumerate(self.pods):
                pod.turn(seconds=5 + number)
                self._decide()

    def _decide(self) -> None:
        reports = [versions.PodVersions(report=pod.status(), template="t") for pod in self.pods]
        self.record = versions.decide(
            Model(storage_uri="gs://models/imagenet"), self.record, reports, reached=None
        )
        if self.targets[-1:] != [self.record.target]:
            self.targets.append(self.record.target)
        if self.record.target is not None:
            bad = [(entry.version, entry.stored) for entry in self.record.quarantined]
            for pod in self.pods:
                pod.tell(self.record.target, *self.record.served, quarantined=bad)

    def serves(self) -> list[int | None]:
        return [pod.status().active_version for pod in self.pods]


def _garbage(source: MemorySource) -> Callable[[], None]:
    source.put_all({**GOOD, "2/saved_model.pb": b"<html>"})
    return lambda: source.put_all(GOOD)


def _half_an_upload(source: MemorySource) -> Callable[[], None]:
    source.put("2/saved_model.pb", graph())
    return lambda: source.put_all(GOOD)


def _forbidden(source: MemorySource) -> Callable[[], None]:
    source.put("2.zip", zipped(model(b"2")))
    source.refused["2.zip"] = AccessDeniedError("403")
    return source.refused.clear


def _too_large(source: MemorySource) -> Callable[[], None]:
    source.put("2.zip", zipped(model(b"2")))
    source.sizes["2.zip"] = 1 << 60
    return source.sizes.clear


@pytest.mark.parametrize("checksums", [True, False])
@pytest.mark.parametrize("spoil", [_garbage, _half_an_upload, _forbidden, _too_large])
def test_the_good_version_is_served_until_the_newer_one_can_be_had(
    tmp_path: Path, spoil: Callable[[MemorySource], Callable[[], None]], checksums: bool
) -> None:
    source = MemorySource()
    source.checksums = checksums
    source.put_all(below("1", model(b"1")))
    heal = spoil(source)
    fleet = Fleet(tmp_path, source)
    fleet.add()
    fleet.add()
    fleet.settle()
    fleet.add()
    fleet.settle()
    assert fleet.serves() == [1, 1, 1]
    assert fleet.targets[-1] == 1
    assert fleet.targets.count(2) <= 1
    heal()
    fleet.settle(turns=30)
    assert fleet.serves() == [2, 2, 2]
    assert fleet.targets.count(1) == 1
