"""What is built is built once, and a failure says all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devcluster import build, paths
from devcluster.build import Tool
from devcluster.errors import BuildError, PreconditionError

if TYPE_CHECKING:
    from pathlib import Path

GO = """#!/bin/sh
if [ "$1" = env ]; then echo "$FAKE_VERSION"; exit 0; fi
echo "$@" >> "$FAKE_CALLS"
if [ -n "$FAKE_FAILURE" ]; then echo "$FAKE_FAILURE"; exit 1; fi
while [ "$1" != -o ]; do shift; done
echo program > "$2"
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose Go writes down how it was called."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "go").write_text(GO)
    (binaries / "go").chmod(0o755)
    written = tmp_path / "calls"
    written.touch()
    monkeypatch.setenv("PATH", f"{binaries}:/usr/bin:/bin")
    monkeypatch.setenv("FAKE_VERSION", "go1.26.8")
    monkeypatch.setenv("FAKE_CALLS", str(written))
    monkeypatch.setenv("FAKE_FAILURE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    build.go_version.cache_clear()
    return written


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    module = tmp_path / "tools" / "thing"
    module.mkdir(parents=True)
    (module / "go.mod").write_text("module x\n\nrequire (\n\texample.com/thing v1.2.3\n)\n")
    (module / "go.sum").write_text("sums\n")
    monkeypatch.setattr(paths, "TOOLS", tmp_path / "tools")
    return Tool("thing", "thing", "example.com/thing", "example.com/thing", "-X v={version}")


def test_a_program_is_built_once(calls: Path) -> None:
    first = build.ensure(["pause"])["pause"]
    assert first.read_text() == "program\n"
    assert build.ensure(["pause"])["pause"] == first
    assert len(calls.read_text().splitlines()) == 1


def test_the_linker_is_told_the_version_of_the_go_mod(tool: Tool) -> None:
    assert tool.version() == "v1.2.3"
    assert tool.flags() == ["-buildvcs=false", "-ldflags=-s -w -X v=v1.2.3"]


@pytest.mark.parametrize("file", ["go.mod", "go.sum", "main.go"])
def test_a_changed_source_means_another_program(tool: Tool, file: str) -> None:
    before = tool.key("go1.26.8")
    with (tool.directory / file).open("a") as written:
        written.write("// changed\n")
    assert tool.key("go1.26.8") != before


def test_another_compiler_means_another_program(tool: Tool) -> None:
    assert tool.key("go1.26.8") != tool.key("go1.27.0")


def test_a_failed_build_says_which_program_why_and_where_the_log_is(
    calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FAILURE", "undefined: missing")
    with pytest.raises(BuildError) as raised:
        build.ensure(["pause"])
    message = str(raised.value)
    assert "pause" in message
    assert "undefined: missing" in message
    assert str(paths.cache() / "logs" / "build-pause.log") in message
    monkeypatch.setenv("FAKE_FAILURE", "")
    assert build.ensure(["pause"])["pause"].exists()


def test_go_that_is_too_old_is_told(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_VERSION", "go1.19.8")
    with pytest.raises(PreconditionError, match=r"go1\.19\.8 is too old: install Go 1\.21"):
        build.ensure(["pause"])


def test_missing_go_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_go", lambda: None)
    build.go_version.cache_clear()
    with pytest.raises(PreconditionError, match="Go is missing: install Go"):
        build.ensure(["pause"])


def test_an_unknown_program_is_told_with_those_that_there_are() -> None:
    with pytest.raises(BuildError, match="no program is called kubelett; there are etcd, kubectl"):
        build.ensure(["kubelett"])


@pytest.mark.parametrize("tool", build.TOOLS.values(), ids=lambda tool: tool.name)
def test_each_program_is_a_tool_of_its_go_mod(tool: Tool) -> None:
    text = (tool.directory / "go.mod").read_text()
    own = next(line for line in text.splitlines() if line.startswith("module ")).split()[1]
    package = f"{own}/{tool.package}".replace("/./", "/").removesuffix("/.")
    wanted = package if tool.package.startswith(".") else tool.package
    tools = text[text.index("tool ") :].replace("(", " ").split()
    assert wanted in tools
    assert bool(tool.version()) == bool(tool.required)
