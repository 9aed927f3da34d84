"""What the pages tell their readers to type is what the programs take."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import typer.main
import yaml

from bench.__main__ import parser as bench_parser
from devcluster.cli import command_line as devcluster_parser
from kubectl_inferencemodel.arguments import command_first
from kubectl_inferencemodel.cli import app
from model_poller.publishing.main import parser as publish_parser
from model_poller.settings import parser as poller_parser
from tests.support.pages import ELSEWHERE, PAGES, ROOT, Command, blocks, commands

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

PLUGIN = typer.main.get_group(app)


def every(*programs: str) -> list[Command]:
    """The commands of some programs; that there are any is a test of its own."""
    found = [command for program in programs for command in commands(program.split())]
    assert found, programs
    return found


def by_argparse(parser: Callable[[], argparse.ArgumentParser], command: Command) -> None:
    """Parse it; of a command that isn't whole, see whether the options are there."""
    words = [word for word in command.words if word != ELSEWHERE]
    if not command.partial:
        parser().parse_args(words)
        return
    known = parser().format_help()
    for word in words:
        if word.startswith("-"):
            assert re.search(rf"(?<![\w-]){re.escape(word.split('=')[0])}(?![\w-])", known), word


@pytest.mark.parametrize("command", every("kubectl inferencemodel", "kubectl tfm"), ids=str)
def test_commands_of_the_plugin(command: Command) -> None:
    # What may be left out stands in brackets, and `a | b` is a choice.
    words = [word.strip("[]") for word in command.words if word != ELSEWHERE]
    if not words:
        return
    name, *arguments = command_first(words)
    if any(name in parameter.opts for parameter in PLUGIN.params):
        return
    found = PLUGIN.commands.get(name.rstrip(","))
    assert found is not None, name
    if not command.partial:
        found.make_context(name, [word.replace("NAME", "name") for word in arguments])
    options = {option for parameter in found.params for option in parameter.opts}
    for word in words:
        assert not word.startswith("-") or word.split("=")[0] in options, word


@pytest.mark.parametrize("command", every("model_poller"), ids=str)
def test_commands_of_the_poller(command: Command) -> None:
    by_argparse(poller_parser, command)


@pytest.mark.parametrize("command", every("model_publish"), ids=str)
def test_commands_of_the_publisher(command: Command) -> None:
    by_argparse(publish_parser, command)


@pytest.mark.parametrize("command", every("python -m bench"), ids=str)
def test_measurements(command: Command) -> None:
    by_argparse(bench_parser, command)


@pytest.mark.parametrize(
    "command", every("devcluster", "python3 -m devcluster", "python -m devcluster"), ids=str
)
def test_commands_of_the_embedded_cluster(command: Command) -> None:
    by_argparse(devcluster_parser, command)


@pytest.mark.parametrize("command", every("make"), ids=str)
def test_targets_of_the_makefile(command: Command) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for word in command.words:
        assert "=" in word or word in targets


def test_helm_sets_values_that_there_are() -> None:
    values = yaml.safe_load((ROOT / "charts/inferencemodel-operator/values.yaml").read_text())
    for command in every("helm install", "helm upgrade"):
        for word in command.words:
            if setting := re.match(r"--set(?:-string)?=([^=]+)=", word):
                within = values
                for part in setting[1].split("."):
                    assert isinstance(within, dict), command
                    if within == {}:
                        # A map of the reader's own, such as labels.
                        break
                    assert part in within, f"{command}: {setting[1]}"
                    within = within[part]


def test_each_block_of_yaml_is_yaml() -> None:
    found = [block for page in PAGES for block in blocks(page) if block.language == "yaml"]
    assert len(found) > 10
    for block in found:
        try:
            list(yaml.safe_load_all(block.text))
        except yaml.YAMLError as error:
            pytest.fail(f"{block}: {error}")


def test_files_that_pages_name_are_there() -> None:
    named = re.compile(
        r"(?<![\w/.-])((?:examples|manifests|charts/inferencemodel-operator|crds|images|requirements)/"
        r"[\w./-]*[\w/])"
    )
    missing = [
        f"{page.name}:{number}: {path}"
        for page in PAGES
        for number, line in enumerate(page.read_text().splitlines(), 1)
        for path in named.findall(line)
        # Pictures are named from where the pages are.
        if not any((folder / path).exists() for folder in (ROOT, ROOT / "docs"))
    ]
    assert missing == []
