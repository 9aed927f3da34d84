"""The command line, on an API server's double."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from kubectl_inferencemodel import cli
from tests.unit.plugin.api import ApiServer, kubeconfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """An API server that KUBECONFIG names."""
    server = ApiServer()
    with server.run() as url:
        file = tmp_path / "kubeconfig"
        file.write_text(yaml.safe_dump(kubeconfig(url)))
        monkeypatch.setenv("KUBECONFIG", str(file))
        yield server


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs one command line in this process: exit code, standard output and error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.run(arguments)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run
