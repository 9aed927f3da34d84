"""The tree that is released: which commit it is, and whether it may be."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from release import notes, version
from release.errors import ProgramError, TreeError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Tree:
    """What git and the files say."""

    version: str
    commit: str
    epoch: int
    """When the commit was made, in seconds since 1970: the time of everything in the release."""
    changes: tuple[str, ...]
    """Files that are not as in the commit, or in none."""
    changelog: str


def read(root: Path = version.ROOT) -> Tree:
    """The tree as it is.

    Raises:
        ProgramError: git can't tell.
    """
    shown = _git(root, "show", "--no-patch", "--format=%H %ct", "HEAD").split()
    changes = _git(root, "status", "--porcelain", "--untracked-files=all").splitlines()
    return Tree(
        version=version.current(root),
        commit=shown[0],
        epoch=int(shown[1]),
        changes=tuple(line[3:] for line in changes),
        changelog=(root / "CHANGELOG.md").read_text(),
    )


def check(tree: Tree, wanted: str) -> None:
    """See that a tree is the one to release.

    Raises:
        TreeError: it has another version, changes, or nothing about that version in its changelog.
    """
    check_version(tree, wanted)
    if tree.changes:
        shown = ", ".join(tree.changes[:5]) + (", …" if len(tree.changes) > 5 else "")
        raise TreeError(
            f"the tree has changes that are in no commit ({shown}): commit or stash them. "
            "To try a release of the tree as it is, set TRIAL=1"
        )
    if notes.section(tree.changelog, wanted) is None:
        raise TreeError(
            f"CHANGELOG.md has no section about {wanted}: call its section Unreleased so, with the "
            "day, and commit. To try a release of the tree as it is, set TRIAL=1"
        )


def check_version(tree: Tree, wanted: str) -> None:
    """See that a tree has the version that is asked for.

    Raises:
        TreeError: it has another one.
    """
    if not wanted:
        raise TreeError(f"say which version: make release VERSION={tree.version}")
    if tree.version != wanted:
        raise TreeError(
            f"the tree is version {tree.version}, not {wanted}: run make version VERSION={wanted} "
            "and commit what it changes"
        )


def copy(root: Path, target: Path) -> None:
    """Copy what git knows of, as it is in the tree, so that nothing else gets into a release."""
    for name in _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split(
        "\0"
    ):
        source = root / name
        if not name or not (source.is_file() or source.is_symlink()):
            continue
        # What the umask is, or was when it was checked out, is nobody's business: an image whose
        # folders only root may enter does not start.
        for folder in reversed((target / name).relative_to(target).parents):
            (target / folder).mkdir(parents=True, exist_ok=True)
            (target / folder).chmod(0o755)
        shutil.copy2(source, target / name, follow_symlinks=False)
        if not source.is_symlink():
            (target / name).chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ProgramError(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout
