"""What an image consists of, and under which licences: the list that lies in it.

The Dockerfiles run this file alone, on any Python that there is: it imports nothing of the project.
``python3 licences.py /app`` writes ``/app/licences/LICENCES.txt``.
"""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import dataclass, field
from email.parser import HeaderParser
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Where the list lies below the folder of the program.
FOLDER = "licences"
LIST = "LICENCES.txt"
_CLASSIFIER = "License :: "
_MACHINE_READABLE = "https://www.debian.org/doc/packaging-manuals/copyright-format/"
#: A field of metadata that holds more than this is the licence's text, not its name.
_LONGEST_NAME = 100


@dataclass(frozen=True)
class Package:
    """A package that is in an image."""

    name: str
    version: str
    licences: tuple[str, ...] = ()
    """As the package itself names them."""
    files: tuple[str, ...] = field(default=(), compare=False)
    """Where their texts are."""
    architecture: str = ""
    """Debian's; empty for a package of Python."""


def python_package(metadata: str, files: Iterable[str] = ()) -> Package:
    """A package of Python, by its ``METADATA``."""
    fields = HeaderParser().parsestr(metadata)
    classified = [
        value.removeprefix(_CLASSIFIER).removeprefix("OSI Approved :: ")
        for value in fields.get_all("Classifier", [])
        if value.startswith(_CLASSIFIER)
    ]
    named = fields.get("License", "").strip()
    short = [named] if named and len(named) <= _LONGEST_NAME and "\n" not in named else []
    expression = fields.get("License-Expression")
    licences = [expression] if expression else (short or classified)
    return Package(fields["Name"], fields["Version"], tuple(licences), tuple(sorted(files)))


def debian_packages(status: str) -> list[Package]:
    """The packages that dpkg's ``status`` file says are installed."""
    found = []
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^(\S+): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            found.append(
                Package(fields["Package"], fields["Version"], architecture=fields["Architecture"])
            )
    return sorted(found, key=lambda package: package.name)


def debian_licences(copyright_file: str) -> tuple[str, ...]:
    """The licences that a ``copyright`` file names; none where it is not machine-readable."""
    if _MACHINE_READABLE not in copyright_file.replace("http:", "https:"):
        return ()
    return tuple(dict.fromkeys(re.findall(r"^License: *(\S.*?) *$", copyright_file, re.MULTILINE)))


def collect(app: Path, root: Path = Path("/")) -> list[Package]:
    """The packages of Python below ``app``, and those of Debian below ``root``."""
    found = []
    for directory in sorted(app.glob("*.dist-info")):
        texts = [path for path in directory.rglob("*") if _is_licence(path)]
        shown = (f"/{path.relative_to(root)}" for path in texts)
        found.append(python_package((directory / "METADATA").read_text(), shown))
    status = root / "var/lib/dpkg/status"
    for package in debian_packages(status.read_text()) if status.is_file() else ():
        path = root / "usr/share/doc" / package.name / "copyright"
        licences = debian_licences(path.read_text(errors="replace")) if path.is_file() else ()
        files = (f"/{path.relative_to(root)}",) if path.is_file() else ()
        found.append(Package(package.name, package.version, licences, files, package.architecture))
    return found


def _is_licence(path: Path) -> bool:
    words = re.compile(r"licen[cs]e|copying|notice|authors", re.IGNORECASE)
    return path.is_file() and bool(words.search(path.name))


def table(packages: Sequence[Package]) -> str:
    """The list, for people."""
    lines = [
        "What this image consists of beside the project's own code, which is under Apache-2.0",
        f"({FOLDER}/LICENSE): each package, its licences as it names them, and where their texts",
        "are in this image. Where a package brings no text, its name says which licence it is.",
        "",
    ]
    for package in packages:
        kind = "Debian" if package.architecture else "Python"
        lines.append(f"{package.name} {package.version} ({kind})")
        lines.append(f"    licences: {', '.join(package.licences) or 'see the text'}")
        lines += [f"    text: {file}" for file in package.files]
    return "\n".join([*lines, ""])


def main(app: Path, own: Path) -> None:
    """Write the list, and the project's own licence beside it."""
    folder = app / FOLDER
    folder.mkdir()
    shutil.copy(own, folder / "LICENSE")
    (folder / LIST).write_text(table(collect(app)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
