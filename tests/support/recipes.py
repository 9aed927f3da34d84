"""The commands of docs/waiting.md, which tests run as they stand there."""

from __future__ import annotations

import re
import shlex

from tests.support.crd import ROOT

_COMMAND = re.compile(r"^<!-- (tested[^>]*) -->\n    kubectl (.+)$", re.MULTILINE)


def commands(mark: str) -> list[list[str]]:
    """The arguments of each command that has this mark."""
    text = (ROOT / "docs" / "waiting.md").read_text()
    return [shlex.split(command) for found, command in _COMMAND.findall(text) if found == mark]
