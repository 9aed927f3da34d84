"""The keys for k9s are what k9s takes, and call commands that there are."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support.crd import EXAMPLES, ROOT

if TYPE_CHECKING:
    from pathlib import Path

FILE = yaml.safe_load((EXAMPLES / "k9s" / "plugins.yaml").read_text())
PLUGINS: dict[str, dict[str, Any]] = FILE["plugins"]
REQUIRED = {"shortCut", "description", "scopes", "command"}
KNOWN = REQUIRED | {"override", "confirm", "dangerous", "background", "overwriteOutput", "args"}
"""Of k9s' own schema of the file, internal/config/json/schemas/plugins.json."""


def test_the_file_has_the_fields_that_k9s_knows_and_each_key_once() -> None:
    assert FILE.keys() == {"plugins"}
    for plugin in PLUGINS.values():
        assert plugin.keys() >= REQUIRED
        assert plugin.keys() <= KNOWN
        assert plugin["scopes"] == ["inferencemodels"]
    keys = [plugin["shortCut"] for plugin in PLUGINS.values()]
    assert len(keys) == len(set(keys))


def test_what_changes_something_asks_first() -> None:
    reads = {"rollout", "why", "versions"}
    for name, plugin in PLUGINS.items():
        reading = name.removeprefix("inferencemodel-") in reads
        assert plugin.get("confirm", False) is not reading


@pytest.mark.parametrize("name", PLUGINS)
def test_each_calls_a_command_that_there_is(name: str, tmp_path: Path) -> None:
    """As k9s runs it, with another program in the place of kubectl, and no cluster."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        f'#!/bin/sh\nshift\n{sys.executable} -m kubectl_inferencemodel "$@"\n'
        f"echo $? > {tmp_path}/code\n"
    )
    kubectl.chmod(0o755)
    plugin = PLUGINS[name]
    done = subprocess.run(
        [plugin["command"], *plugin["args"]],
        env={
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT}/plugin:{ROOT}/operator:{ROOT}/poller",
            "KUBECONFIG": str(tmp_path / "none"),
            "NAME": "imagenet",
            "NAMESPACE": "vision",
            "CONTEXT": "user@cluster (1)",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (tmp_path / "code").read_text().strip() == "1", done.stdout + done.stderr
    assert "kubeconfig" in done.stderr + done.stdout
