"""Asks OSV, the database of known vulnerabilities, for every package that a lock pins.

https://google.github.io/osv.dev/post-v1-querybatch. Where it can't be reached, that is an error
which says so: nobody knows then, which is not the same as none.
"""

from __future__ import annotations

import json
import re
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from release.errors import AuditError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

DATABASE = "https://api.osv.dev"
#: What one request may ask.
_BATCH = 1000
_SECONDS = 60
_PIN = re.compile(r"^(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[^\s;\\]+)(?P<marker>[^\\]*)")
#: How a lock leaves something out on every system.
_NEVER = "sys_platform == 'never'"


@dataclass(frozen=True, order=True)
class Pin:
    """A package that a lock pins."""

    name: str
    version: str
    lock: str


@dataclass(frozen=True)
class Finding:
    """A known vulnerability of a pinned package."""

    pin: Pin
    vulnerability: str

    def __str__(self) -> str:
        return f"{self.pin.lock}: {self.pin.name} {self.pin.version} has {self.vulnerability}"


def pins(lock: str, text: str) -> list[Pin]:
    """What a lock pins, without what no system installs."""
    found = [_PIN.match(line) for line in text.splitlines()]
    return [
        Pin(pin["name"], pin["version"], lock)
        for pin in found
        if pin and _NEVER not in pin["marker"]
    ]


def ask(asked: Sequence[Pin], database: str = DATABASE) -> list[Finding]:
    """The known vulnerabilities of packages.

    Args:
        asked: the packages.
        database: the address of an OSV server.

    Raises:
        AuditError: it can't be asked, or answers something else.
    """
    findings = []
    for start in range(0, len(asked), _BATCH):
        batch = asked[start : start + _BATCH]
        answers = _post(f"{database}/v1/querybatch", {"queries": [_query(pin) for pin in batch]})
        results = answers.get("results")
        if not isinstance(results, list) or len(results) != len(batch):
            raise AuditError(f"{database} answers something else than a result for each package")
        for pin, result in zip(batch, results, strict=True):
            findings += [Finding(pin, known["id"]) for known in (result or {}).get("vulns", [])]
    return findings


def run(locks: Iterable[Path], database: str = DATABASE) -> str:
    """Audit locks; a line that says what was asked.

    Raises:
        AuditError: a package has a known vulnerability, or the database can't be asked.
    """
    asked = sorted({pin for lock in locks for pin in pins(lock.name, lock.read_text())})
    findings = ask(asked, database)
    if findings:
        raise AuditError("\n".join(["known vulnerabilities:", *map(str, findings)]))
    files = sorted({pin.lock for pin in asked})
    return f"{len(asked)} pins of {', '.join(files)}: {database} knows of no vulnerability"


def _query(pin: Pin) -> dict[str, Any]:
    return {"package": {"name": pin.name, "ecosystem": "PyPI"}, "version": pin.version}


def _post(address: str, content: dict[str, Any]) -> dict[str, Any]:
    if urlsplit(address).scheme not in ("http", "https"):
        raise AuditError(f"{address} is no address of a web server")
    request = urllib.request.Request(  # noqa: S310  # looked at above
        address, json.dumps(content).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as response:  # noqa: S310
            answer = json.load(response)
    except (OSError, ValueError) as error:
        raise AuditError(
            f"nothing was audited: {address} can't be asked ({error}). Run it where it can be, or "
            "name another server of OSV's API with --database"
        ) from None
    if not isinstance(answer, dict):
        raise AuditError(f"nothing was audited: {address} answers no object")
    return answer
