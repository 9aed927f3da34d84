"""Two versions side by side, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Group
from rich.text import Text

from kubectl_inferencemodel import output
from kubectl_inferencemodel.comparison import Comparison, Golden, Side, rows
from kubectl_inferencemodel.display import add, styled, table
from kubectl_inferencemodel.output import NONE

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_MEGABYTE = 1_000_000


def for_programs(found: Comparison) -> dict[str, Any]:
    """The whole comparison, with its verdicts."""
    told: dict[str, Any] = msgspec.to_builtins(found)
    return {
        **told,
        "interfacesKnown": found.is_known,
        "breaksClients": found.breaks,
        "goldenFailed": found.failed,
    }


def render(found: Comparison) -> RenderableType:
    """The verdict, what differs, and both versions side by side."""
    parts: list[RenderableType] = [_verdict(found)]
    if found.differences:
        changes = table("BREAKS CLIENTS", "CHANGE")
        for difference in found.differences:
            breaks = Text("yes", style="red") if difference.breaking else Text("no", style="green")
            add(changes, breaks, difference.text)
        parts += ["", changes]
    parts += ["", _sides(found)]
    golden = _golden(found)
    if golden.row_count:
        parts += ["", golden]
    return Group(*parts)


def _verdict(found: Comparison) -> Text:
    style = "yellow" if not found.is_known else "red" if found.breaks else "green"
    return Text(output.plain(f"{found.name}: {found.verdict}"), style=style)


def _sides(found: Comparison) -> Table:
    before, after = found.before, found.after
    shown = table("SIGNATURE", "", f"VERSION {before.version}", f"VERSION {after.version}")
    last = ""
    for row in rows(found):
        style = "" if row.before == row.after else "yellow"
        texts = (Text(output.plain(text or NONE), style=style) for text in (row.before, row.after))
        add(shown, "" if row.signature == last else row.signature, row.what, *texts)
        last = row.signature
    for side in (before, after):
        if side.interface is not None and side.interface.message:
            add(shown, "not read", f"version {side.version}", side.interface.message, "")
    add(shown, "weights", "", _weight(before), _weight(after))
    return shown


def _weight(side: Side) -> str:
    return f"{side.weight_bytes / _MEGABYTE:.1f} MB" if side.weight_bytes else NONE


def _golden(found: Comparison) -> Table:
    shown = table("GOLDEN REQUESTS OF", "ON", "RECORDS", "RESULT", "")
    for side in (found.before, found.after):
        for golden in side.golden:
            add(shown, f"version {side.version}", *_result(golden))
    return shown


def _result(golden: Golden) -> tuple[str | Text, ...]:
    records = str(golden.records) if golden.records else NONE
    return golden.where, records, styled(golden.result), golden.message
