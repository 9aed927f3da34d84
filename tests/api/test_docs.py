"""What the pages show of InferenceModels is what the API server takes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from devcluster.client import KubectlError
from inferencemodel_operator import names
from tests.support import crd
from tests.support.pages import ELSEWHERE, PAGES, Block, Command, blocks, commands

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devcluster.client import Api

pytestmark = pytest.mark.api

Object = dict[str, Any]
MODEL: Object = {
    "apiVersion": names.API_VERSION,
    "kind": names.KIND,
    "metadata": {"name": "imagenet"},
    "spec": {"model": {"storageUri": "gs://models/imagenet"}, "replicas": 3},
}
FIELDS = set(
    yaml.safe_load(crd.CRD.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"][
        "properties"
    ]["spec"]["properties"]
)


def shown() -> list[tuple[Block, Object]]:
    """The InferenceModels that pages show, whole or in parts, each as a whole one."""
    found = []
    for page in PAGES:
        for block in blocks(page):
            if block.language not in {"", "yaml"} or ELSEWHERE in block.text:
                continue
            try:
                content = yaml.safe_load(block.text)
            except yaml.YAMLError:
                # Not YAML: a command, a picture.
                continue
            if not isinstance(content, dict):
                continue
            if content.get("kind") == names.KIND:
                found.append((block, content))
            elif set(content) == {"spec"} and set(content["spec"]) <= FIELDS:
                found.append((block, {**MODEL, "spec": MODEL["spec"] | content["spec"]}))
            elif content and set(content) <= FIELDS:
                found.append((block, {**MODEL, "spec": MODEL["spec"] | content}))
    return found


def told(*verbs: str) -> list[Command]:
    """The commands of kubectl's own with one of these verbs that pages show in blocks."""
    return [
        command
        for command in commands(["kubectl"])
        if not command.partial and command.words and command.words[0] in verbs
        if "inferencemodel" in command.words[1]
    ]


@pytest.fixture(scope="module")
def namespace(api_server: Api) -> Iterator[str]:
    with crd.installed(api_server) as name:
        api_server.kubectl("apply", "--namespace", name, "-f", "-", stdin=json.dumps(MODEL))
        yield name


def test_pages_show_inferencemodels() -> None:
    assert len(shown()) > 10


@pytest.mark.parametrize(("block", "model"), shown(), ids=[str(block) for block, _ in shown()])
def test_what_pages_show_is_valid(
    api_server: Api, namespace: str, block: Block, model: Object
) -> None:
    model = {**model, "metadata": {"name": "shown"}}
    api_server.kubectl(
        *("create", "--dry-run=server", "--validate=strict", "--namespace", namespace, "-f", "-"),
        stdin=json.dumps(model),
    )


@pytest.mark.parametrize("command", told("patch", "annotate"), ids=str)
def test_changes_that_pages_tell_are_taken(
    api_server: Api, namespace: str, command: Command
) -> None:
    api_server.kubectl(*command.words, "--namespace", namespace, "--dry-run=server")


@pytest.mark.parametrize("command", told("get"), ids=str)
def test_questions_that_pages_tell_are_answered(
    api_server: Api, namespace: str, command: Command
) -> None:
    everywhere = "--all-namespaces" in command.words
    where = [] if everywhere else ["--namespace", namespace]
    assert "imagenet" in api_server.kubectl(*command.words, *where)


@pytest.mark.parametrize("command", told("wait"), ids=str)
def test_waits_that_pages_tell_end_by_the_clock(
    api_server: Api, namespace: str, command: Command
) -> None:
    """Nothing here serves, and no other error than that may come."""
    words = [word for word in command.words if not word.startswith("--timeout")]
    with pytest.raises(KubectlError, match=r"timed out waiting|is not found"):
        api_server.kubectl(*words, "--namespace", namespace, "--timeout=1s")
