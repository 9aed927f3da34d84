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
from kubectl_inferencemodel.cli import program
from model_poller.publishing.main import parser as publish_parser
from model_poller.settings import parser as poller_parser
from tests.support.pages import (
    ELSEWHERE,
    MARK,
    OTHERS,
    PAGES,
    ROOT,
    STATES,
    Block,
    Command,
    blocks,
    commands,
    statements,
    to_run,
    typed,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

PLUGIN = typer.main.get_group(program())


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


def test_every_option_of_the_plugin_is_on_its_page() -> None:
    page = "".join(
        (ROOT / "docs" / name).read_text() for name in ("kubectl-plugin.md", "console.md")
    )
    options = {
        option
        for command in PLUGIN.commands.values()
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--")
    }
    told = set(re.findall(r"(?<![\w-])--[a-z-]+", page))
    assert options - told == set()


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


def test_every_block_of_commands_is_run_by_a_test_or_says_why_not() -> None:
    found = typed()
    assert len(found) > 50
    assert [str(block) for block in found if block.mark is None] == []
    for block in found:
        assert block.mark is not None
        if block.mark.kind == "run by":
            path, _, test = block.mark.words.partition("::")
            assert re.search(rf"^def {test}\(", (ROOT / path).read_text(), re.MULTILINE), block
        elif block.mark.kind == "not run":
            assert block.mark.words, block
        else:
            assert block in to_run("", *STATES, *OTHERS), f"{block}: who is {block.mark.words}?"


def test_marks_stand_before_blocks_of_commands_alone() -> None:
    marked = [block for page in PAGES for block in blocks(page) if block.mark]
    assert [str(block) for block in marked if not block.is_typed] == []
    written = sum(len(MARK.findall(page.read_text())) for page in PAGES)
    assert written == len(marked)


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("", "terraform apply", True),
        ("bash", "spec: {}", True),
        ("", "spec:\n  replicas: 3", False),
        ("", '{"version": 15}', False),
        ("text", "a ──▶ b", False),
        ("lua", "return health", False),
    ],
)
def test_whatever_does_not_say_that_it_is_something_else_is_for_a_shell(
    language: str, text: str, expected: bool
) -> None:
    assert Block("page.md", 1, language, text).is_typed is expected


def test_what_is_typed_is_told_from_what_is_answered() -> None:
    block = Block("page.md", 1, "", "$ kubectl get pods\nNAME\n\n$ kubectl get nodes")
    assert block.script == "kubectl get pods\nkubectl get nodes"


def test_a_command_is_counted_with_all_that_belongs_to_it() -> None:
    script = "# first\nmake a  # why\n\nkubectl apply -f - <<'END'\nkind: X\n\nEND\nmake b \\\n  c"
    assert statements(script) == [
        "make a  # why",
        "kubectl apply -f - <<'END'\nkind: X\n\nEND",
        "make b    c",
    ]
