"""How the interfaces of two versions of a model differ, and whether clients would notice.

What breaks a client is the model server's rule, not ours (TensorFlow Serving 2.16):

- A request is refused when it names a signature or an input that isn't there, when it lacks an
  input without a default (``predict_util.cc``), and when a signature's method is not the one that
  the call is for.
- The REST API writes the value alone while a signature has one output, and an object with names
  from the second one on; texts of an output whose name ends with ``_bytes`` become base64
  (``json_tensor.cc``).
- A dimension that opens (28 to -1) takes what it took before; one that closes, and another rank,
  does not. Of an output the graph often merely says more or less than it did, so there only another
  rank or another fixed size breaks anybody.

Names come out of other people's graphs, so every text of them is bounded here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from inferencemodel_operator import bounds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from model_poller.status import Interface, SignatureSpec, TensorSpec

DEFAULT_SIGNATURE: Final = "serving_default"
"""The one that a request means when it names none."""
_INTERNAL: Final = "__saved_model_"
"""How TensorFlow begins the names of signatures of its own, which no client calls."""
_NAME: Final = 100
"""Bytes of a name, a type or a method that are shown."""
_DIMENSIONS: Final = 16
"""Dimensions of a shape that are shown."""
_OPEN: Final = -1


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which a version's interface is not that of the version before."""

    signature: str
    """Whose; empty for what is about all of them."""
    breaking: bool
    """Whether requests that were answered are refused now, or answered in another form."""
    text: str
    """One line that also names the signature."""


def differences(before: Interface, after: Interface) -> tuple[Difference, ...]:
    """In what ``after`` differs for clients of ``before``; what breaks them comes first.

    An interface that couldn't be read (it has a ``message``) says nothing about signatures: then
    that is the only difference, and not a breaking one. Who decides by the answer looks for it
    first.
    """
    for interface, whose in ((before, "before"), (after, "after")):
        if interface.message:
            why = bounds.text(interface.message, 2 * _NAME)
            return (Difference("", breaking=False, text=f"not known {whose} the change: {why}"),)
    old, new = _signatures(before), _signatures(after)
    if old and not new:
        return (Difference("", breaking=True, text="no signature at all: no request is answered"),)
    found = [
        difference
        for name in sorted(
            old.keys() | new.keys(), key=lambda name: (name != DEFAULT_SIGNATURE, name)
        )
        for difference in _of_signature(name, old.get(name), new.get(name))
    ]
    return tuple(sorted(found, key=lambda difference: not difference.breaking))


def breaking(found: Iterable[Difference]) -> bool:
    """Whether any of the differences is one that clients notice."""
    return any(difference.breaking for difference in found)


def message(found: Iterable[Difference], limit: int = bounds.MESSAGE) -> str:
    """The differences as one line of at most ``limit`` bytes: as many as fit, and how many do not.

    What breaks clients comes first. Empty if there is no difference.
    """
    texts = [each.text for each in sorted(found, key=lambda each: not each.breaking)]
    line, whole = "", ""
    for shown, text in enumerate(texts, 1):
        line = f"{line}; {text}" if line else text
        if len(line.encode()) > limit:
            break
        left = len(texts) - shown
        counted = f"{line}; and {left} more" if left else line
        if len(counted.encode()) <= limit:
            whole = counted
    return whole or bounds.text(line, limit)


def tensor(spec: TensorSpec) -> str:
    """An input or output in a few characters, as ``float32[-1, 28, 28, 1]``."""
    dtype = bounds.text(spec.dtype, _NAME)
    if spec.shape is None:
        return f"{dtype} of any rank"
    shown = [str(size) for size in spec.shape[:_DIMENSIONS]]
    more = ["…"] if len(spec.shape) > _DIMENSIONS else []
    return f"{dtype}[{', '.join(shown + more)}]"


def _signatures(interface: Interface) -> dict[str, SignatureSpec]:
    return {
        name: signature
        for name, signature in interface.signatures.items()
        if not name.startswith(_INTERNAL)
    }


def _of_signature(
    name: str, old: SignatureSpec | None, new: SignatureSpec | None
) -> Iterator[Difference]:
    if new is None:
        unnamed = ": requests that name none are refused" if name == DEFAULT_SIGNATURE else ""
        yield Difference(name, breaking=True, text=f"signature {_shown(name)} is gone{unnamed}")
        return
    if old is None:
        yield Difference(name, breaking=False, text=f"signature {_shown(name)} is new")
        return
    changes = [*_of_method(old, new), *_of_inputs(old.inputs, new.inputs)]
    changes += _of_outputs(old.outputs, new.outputs)
    for breaks, text in changes:
        yield Difference(name, breaking=breaks, text=f"signature {_shown(name)}: {text}")


_Change = tuple[bool, str]
"""Whether it breaks clients, and what it is."""


def _of_method(old: SignatureSpec, new: SignatureSpec) -> Iterator[_Change]:
    if old.method != new.method:
        yield True, f"its method was {_shown(old.method)} and is {_shown(new.method)}"


def _of_inputs(old: Mapping[str, TensorSpec], new: Mapping[str, TensorSpec]) -> Iterator[_Change]:
    renamed = _renamed(old, new)
    for name, other in renamed.items():
        yield True, f"input {_shown(name)} is called {_shown(other)} now"
    for name in sorted(old.keys() - new.keys() - renamed.keys()):
        yield True, f"input {_shown(name)} is gone"
    for name in sorted(new.keys() - old.keys() - set(renamed.values())):
        spec = new[name]
        kind = "takes a new optional input" if spec.optional else "needs a new input"
        yield not spec.optional, f"{kind} {_shown(name)}, {tensor(spec)}"
    for name in sorted(old.keys() & new.keys()):
        was, now = old[name], new[name]
        yield from _of_tensor("input", name, was, now, breaks=_closes(was.shape, now.shape))
        if was.optional != now.optional:
            kind = "optional" if now.optional else "required"
            yield not now.optional, f"input {_shown(name)} is {kind} now"


def _of_outputs(old: Mapping[str, TensorSpec], new: Mapping[str, TensorSpec]) -> Iterator[_Change]:
    renamed = _renamed(old, new)
    for name, other in renamed.items():
        base64 = _base64(name, old[name], other, new[other])
        yield True, f"output {_shown(name)} is called {_shown(other)} now{base64}"
    for name in sorted(old.keys() - new.keys() - renamed.keys()):
        yield True, f"output {_shown(name)} is gone"
    added = sorted(new.keys() - old.keys() - set(renamed.values()))
    for name in added:
        spec = f"{_shown(name)}, {tensor(new[name])}"
        if len(old) == 1:
            yield True, f"output {spec} is new: REST answers with names where it had one value"
        else:
            yield False, f"output {spec} is new"
    if len(old) > 1 and len(new) == 1:
        yield True, "one output is left: REST answers with one value where it had names"
    for name in sorted(old.keys() & new.keys()):
        was, now = old[name], new[name]
        yield from _of_tensor("output", name, was, now, breaks=_another(was.shape, now.shape))


def _of_tensor(
    kind: str, name: str, was: TensorSpec, now: TensorSpec, *, breaks: bool
) -> Iterator[_Change]:
    if was.dtype != now.dtype or was.shape != now.shape:
        text = f"{kind} {_shown(name)} was {tensor(was)} and is {tensor(now)}"
        yield was.dtype != now.dtype or breaks, text


def _renamed(old: Mapping[str, TensorSpec], new: Mapping[str, TensorSpec]) -> dict[str, str]:
    """Names that are gone, with the one new name that must be meant: no other is of that form."""
    gone = _by_form(old, old.keys() - new.keys())
    come = _by_form(new, new.keys() - old.keys())
    return {
        names[0]: come[form][0]
        for form, names in gone.items()
        if len(names) == 1 and len(come.get(form, ())) == 1
    }


def _by_form(
    tensors: Mapping[str, TensorSpec], names: Iterable[str]
) -> dict[tuple[str, tuple[int, ...] | None], list[str]]:
    forms: dict[tuple[str, tuple[int, ...] | None], list[str]] = {}
    for name in sorted(names):
        forms.setdefault((tensors[name].dtype, tensors[name].shape), []).append(name)
    return forms


def _closes(old: tuple[int, ...] | None, new: tuple[int, ...] | None) -> bool:
    """Whether a value of the old shape may not be one of the new shape."""
    if new is None:
        return False
    if old is None or len(old) != len(new):
        return True
    return any(now not in (_OPEN, was) for was, now in zip(old, new, strict=True))


def _another(old: tuple[int, ...] | None, new: tuple[int, ...] | None) -> bool:
    """Whether no value can be of both shapes."""
    if old is None or new is None:
        return False
    if len(old) != len(new):
        return True
    return any(_OPEN not in (was, now) and was != now for was, now in zip(old, new, strict=True))


def _base64(name: str, was: TensorSpec, other: str, now: TensorSpec) -> str:
    before, after = _is_base64(name, was), _is_base64(other, now)
    if before == after:
        return ""
    return ": REST answers in base64 now" if after else ": REST answers no more in base64"


def _is_base64(name: str, spec: TensorSpec) -> bool:
    return spec.dtype == "string" and name.endswith("_bytes")


def _shown(name: str) -> str:
    return f'"{bounds.text(name, _NAME)}"'
