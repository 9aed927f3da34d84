"""The workflows run the Makefile's commands, and may do no more than they have to."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support.crd import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yaml"))}
MAKEFILE = (ROOT / "Makefile").read_text()
#: What each job may write: nobody else may write anything.
MAY_WRITE = {
    ("release", "publish"): {"contents", "packages", "id-token", "attestations"},
}


def jobs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for workflow, content in WORKFLOWS.items():
        for name, job in content["jobs"].items():
            yield workflow, name, job


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for workflow, name, job in jobs():
        for step in job["steps"]:
            yield f"{workflow}/{name}", step


def test_there_is_one_that_tests_and_one_that_releases() -> None:
    assert set(WORKFLOWS) == {"test", "release"}


def test_every_target_that_they_make_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))
    made = [
        target
        for _, step in steps()
        for target in re.findall(r"\bmake ([a-z-]+)", step.get("run", ""))
    ]
    assert {"lint", "unit", "test", "audit", "release", "release-images"} == set(made)
    assert set(made) <= targets


def test_every_variable_that_they_give_to_make_is_one_that_it_reads() -> None:
    given = {
        variable
        for _, step in steps()
        for command in re.findall(r"\bmake (?:\\\n|[^\n])*", step.get("run", ""))
        for variable in re.findall(r"\b([A-Z]+)=", command)
    }
    assert {"VERSION", "IMAGES", "REGISTRY", "REPOSITORY", "BUILDER", "OUTPUT"} == given
    assert all(f"$({variable})" in MAKEFILE for variable in given)


@pytest.mark.parametrize(("workflow", "name", "job"), list(jobs()), ids=lambda each: str(each)[:20])
def test_a_job_may_write_only_what_it_publishes(
    workflow: str, name: str, job: dict[str, Any]
) -> None:
    assert WORKFLOWS[workflow]["permissions"] == {}
    written = {scope for scope, access in job["permissions"].items() if access != "read"}
    assert written == MAY_WRITE.get((workflow, name), set())
    assert "timeout-minutes" in job


def test_actions_are_pinned_to_a_version_and_checkouts_keep_no_credentials() -> None:
    for where, step in steps():
        if "uses" in step:
            pinned = re.fullmatch(r"[\w-]+/[\w/-]+@(v\d+\.\d+\.\d+|[0-9a-f]{40})", step["uses"])
            assert pinned, (where, step["uses"])
        if step.get("uses", "").startswith("actions/checkout@") and where != "test/whole":
            assert step["with"]["persist-credentials"] is False, where


def test_nothing_that_others_write_gets_into_a_command_unquoted() -> None:
    for where, step in steps():
        assert "${{" not in step.get("run", ""), where


def test_a_release_is_made_of_what_make_writes() -> None:
    publish = "\n".join(
        step.get("run", "") for where, step in steps() if where == "release/publish"
    )
    names = {
        "operator poller": "$name-$version.oci.tar",
        "chart": "inferencemodel-operator-$version.tgz",
        "notes": "notes.md",
        "sums": "SHA256SUMS",
        "manifest": "install.yaml",
    }
    assert all(f"dist/{name}" in publish for name in names.values())
    built = (ROOT / "release" / "build.py").read_text()
    for name in ("{name}-{version}.oci.tar", "inferencemodel-operator-{version}.tgz", "notes.md"):
        assert name in built


def test_issue_forms_have_what_github_asks_for() -> None:
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yaml"))
    assert len(forms) == 2
    for path in forms:
        form = yaml.safe_load(path.read_text())
        assert form["name"]
        assert form["description"]
        ids = [item["id"] for item in form["body"] if item["type"] != "markdown"]
        assert ids
        assert len(ids) == len(set(ids))
        for item in form["body"]:
            assert item["type"] in {"markdown", "textarea", "input", "dropdown", "checkboxes"}
            assert ("value" if item["type"] == "markdown" else "label") in item["attributes"]
