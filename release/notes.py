"""The release notes: what the changelog says of a version."""

from __future__ import annotations

import re

_UNRELEASED = "Unreleased"


def section(changelog: str, version: str) -> str | None:
    """What stands below the heading of a version, such as ``## 0.2.0 (2027-01-31)``."""
    found = re.search(
        rf"^## \[?{re.escape(version)}\]?(?: [^\n]*)?\n(?P<text>.*?)(?=^## |\Z)",
        changelog,
        re.MULTILINE | re.DOTALL,
    )
    return found["text"].strip() if found else None


def notes(changelog: str, version: str, base: str = "") -> str:
    """The notes of a version; of a trial, what is not released yet.

    Args:
        changelog: the whole of it.
        version: whose notes.
        base: the address of the repository at that version, for what the changelog links to.
    """
    text = section(changelog, version)
    if text is None:
        unreleased = section(changelog, _UNRELEASED) or ""
        text = f"A trial: {version} is not released.\n\n{unreleased}".strip()
    if base:
        text = re.sub(r"\]\((?!https?:|#)([^)]+)\)", rf"]({base}/\1)", text)
    return f"# {version}\n\n{text}\n"
