"""Which trees may be released, and what a tree that may not is told."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from release import notes, tree
from release.errors import TreeError

if TYPE_CHECKING:
    from pathlib import Path

CHANGELOG = """\
# Changelog

## Unreleased

- Something new.

## 0.2.0 (2027-01-31)

### Added

- [A page](docs/page.md), and [another site](https://example.com/a).

## 0.0.9

- The first.
"""
TREE = tree.Tree("0.2.0", "a" * 40, 1_800_000_000, (), CHANGELOG)


def test_a_clean_tree_of_the_version_is_released() -> None:
    tree.check(TREE, "0.2.0")


@pytest.mark.parametrize(
    ("found", "wanted", "told"),
    [
        (TREE, "0.3.0", r"version 0\.2\.0, not 0\.3\.0: run make version VERSION=0\.3\.0"),
        (TREE, "", r"make release VERSION=0\.2\.0"),
        (replace(TREE, changes=("a.py", "b.py")), "0.2.0", r"\(a\.py, b\.py\): commit.*TRIAL=1"),
        (replace(TREE, changelog="## Unreleased\n"), "0.2.0", r"no section about 0\.2\.0.*TRIAL=1"),
        (replace(TREE, changelog="## 0.2.01\n"), "0.2.0", r"no section about 0\.2\.0"),
    ],
)
def test_another_tree_is_refused_with_what_to_do(found: tree.Tree, wanted: str, told: str) -> None:
    with pytest.raises(TreeError, match=told):
        tree.check(found, wanted)


def test_the_notes_are_what_the_changelog_says_of_the_version() -> None:
    written = notes.notes(CHANGELOG, "0.2.0", "https://example.com/blob/v0.2.0")
    assert written.splitlines() == [
        "# 0.2.0",
        "",
        "### Added",
        "",
        "- [A page](https://example.com/blob/v0.2.0/docs/page.md), and "
        "[another site](https://example.com/a).",
    ]
    assert notes.notes(CHANGELOG, "0.0.9") == "# 0.0.9\n\n- The first.\n"


def test_a_trial_says_that_it_is_one_in_the_notes() -> None:
    written = notes.notes(CHANGELOG, "0.3.0")
    assert "0.3.0 is not released" in written
    assert "Something new." in written


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    root.mkdir()
    (root / "pyproject.toml").write_text('[project]\nversion = "0.2.0"\n')
    (root / "CHANGELOG.md").write_text(CHANGELOG)
    (root / ".gitignore").write_text("/ignored\n")
    (root / "program").write_text("#!/bin/sh\n")
    (root / "program").chmod(0o700)
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    for arguments in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "-m", "First")):
        subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True, timeout=30)
    return root


def test_a_file_that_is_in_no_commit_is_seen(repository: Path) -> None:
    assert tree.read(repository).changes == ()
    (repository / "ignored").write_text("")
    assert tree.read(repository).changes == ()
    (repository / "new").write_text("")
    assert tree.read(repository).changes == ("new",)


def test_what_is_ignored_stays_out_and_modes_do_not_depend_on_the_umask(
    repository: Path, tmp_path: Path
) -> None:
    (repository / "ignored").write_text("secret")
    (repository / "a" / "b").mkdir(parents=True)
    (repository / "a" / "b" / "file").write_text("")
    copied = tmp_path / "copy"
    mask = os.umask(0o077)
    try:
        tree.copy(repository, copied)
    finally:
        os.umask(mask)
    found = {
        str(path.relative_to(copied)): path.stat().st_mode & 0o777 for path in copied.rglob("*")
    }
    assert found == {
        **dict.fromkeys(("pyproject.toml", "CHANGELOG.md", ".gitignore", "a/b/file"), 0o644),
        **dict.fromkeys(("program", "a", "a/b"), 0o755),
    }
    assert copied.stat().st_mode & 0o777 == 0o755
