"""Two versions side by side: what they offer to clients, and how golden requests went. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from inferencemodel_operator import interface
from kubectl_inferencemodel.errors import AnswerError
from model_poller.status import Interface  # noqa: TC001  # msgspec reads the annotations

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kubectl_inferencemodel.resource import InferenceModel
    from model_poller.status import PollerStatus, SignatureSpec, VersionStatus

FAILED = "Failed"
_METHOD = "method"


class Golden(msgspec.Struct, frozen=True):
    """How the golden requests of a version went in one place."""

    where: str
    """A pod, or ``rollout`` for what the resource's status remembers."""
    result: str
    records: int = 0
    """How many there were; 0 where that isn't known."""
    message: str = ""


class Side(msgspec.Struct, frozen=True, rename="camel"):
    """One version."""

    version: int
    weight_bytes: int
    """0 while unknown."""
    interface: Interface | None
    """None where no replica has read it."""
    golden: tuple[Golden, ...]


class Difference(msgspec.Struct, frozen=True):
    """One way in which the second version's interface is another."""

    breaking: bool
    text: str


class Row(msgspec.Struct, frozen=True):
    """A method, an input or an output, of both versions; empty where there is none."""

    signature: str
    what: str
    before: str
    after: str


class Comparison(msgspec.Struct, frozen=True):
    """Both versions."""

    name: str
    before: Side
    after: Side
    differences: tuple[Difference, ...]

    @property
    def is_known(self) -> bool:
        """Whether both interfaces could be read."""
        sides = (self.before.interface, self.after.interface)
        return all(side is not None and not side.message for side in sides)

    @property
    def breaks(self) -> bool:
        """Whether clients of the first version can't go on with the second one."""
        return any(difference.breaking for difference in self.differences)

    @property
    def failed(self) -> bool:
        """Whether the second version gave other answers than its golden requests ask for."""
        return any(golden.result == FAILED for golden in self.after.golden)

    @property
    def verdict(self) -> str:
        """What that means for clients, in one line."""
        before, after = self.before.version, self.after.version
        if not self.is_known:
            return "an interface is not known, so nothing is said about clients"
        if self.breaks:
            return f"version {after} breaks clients of version {before}"
        if self.differences:
            return (
                f"clients of version {before} can go on with version {after}, which is another one"
            )
        return f"versions {before} and {after} have the same interface"


def compare(
    model: InferenceModel, reports: Mapping[str, PollerStatus], before: int, after: int
) -> Comparison:
    """Put two versions side by side, by what pollers say.

    Raises:
        AnswerError: no poller has one of them on its disk; says which there are.
    """
    first, second = (_side(model, reports, version) for version in (before, after))
    found: tuple[interface.Difference, ...] = ()
    if first.interface is not None and second.interface is not None:
        found = interface.differences(first.interface, second.interface)
    told = tuple(Difference(difference.breaking, difference.text) for difference in found)
    return Comparison(model.metadata.name, first, second, told)


def rows(found: Comparison) -> Iterator[Row]:
    """Each signature with its method, inputs and outputs, those of either version."""
    before, after = (
        side.interface.signatures if side.interface else {} for side in (found.before, found.after)
    )
    names = sorted(before.keys() | after.keys(), key=lambda n: (n != "serving_default", n))
    for name in names:
        old, new = _texts(before.get(name)), _texts(after.get(name))
        for what in sorted(old.keys() | new.keys(), key=lambda w: (w != _METHOD, w)):
            yield Row(name, what, old.get(what, ""), new.get(what, ""))


def _texts(signature: SignatureSpec | None) -> dict[str, str]:
    if signature is None:
        return {}
    texts = {_METHOD: signature.method} if signature.method else {}
    for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        for name, spec in sorted(tensors.items()):
            optional = " (optional)" if spec.optional else ""
            texts[f"{kind} {name}"] = f"{interface.tensor(spec)}{optional}"
    return texts


def _side(model: InferenceModel, reports: Mapping[str, PollerStatus], version: int) -> Side:
    known: list[tuple[str, VersionStatus]] = []
    there: set[int] = set()
    for pod, report in sorted(reports.items()):
        for told in report.versions:
            if told.interface is not None or told.weight_bytes or told.golden is not None:
                there.add(told.version)
                if told.version == version:
                    known.append((pod, told))
    golden = [
        Golden(pod, told.golden.result.value, told.golden.records, told.golden.message)
        for pod, told in known
        if told.golden is not None
    ]
    rollout = model.status.model.rollout
    if not golden and rollout is not None and rollout.version == version:
        golden = [
            Golden("rollout", check.result, message=check.message)
            for check in rollout.checks
            if check.name == "golden"
        ]
    if not known and not golden:
        listed = ", ".join(str(number) for number in sorted(there, reverse=True)) or "none"
        failed = model.quarantine_of(version)
        why = f" any more, for it failed ({failed.reason})" if failed is not None else ""
        raise AnswerError(
            f"no replica of {model.metadata.name} has version {version} on its disk{why}; those"
            f" are: {listed}"
        )
    return Side(
        version=version,
        weight_bytes=max((told.weight_bytes for _, told in known), default=0),
        interface=next((told.interface for _, told in known if told.interface is not None), None),
        golden=tuple(golden),
    )
