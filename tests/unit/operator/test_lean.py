"""kopf is imported alone, and nobody else notices."""

from __future__ import annotations

import subprocess
import sys


def run(program: str) -> str:
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return told.stdout.strip()


def test_the_package_that_kopf_would_import_is_not_and_can_be_imported_afterwards() -> None:
    program = (
        "import sys; before = list(sys.meta_path); from inferencemodel_operator import lean; "
        "assert 'kubernetes' not in sys.modules; assert sys.meta_path == before; "
        "import kubernetes.config; print(kubernetes.config.__name__)"
    )
    assert run(program) == "kubernetes.config"


def test_who_has_imported_it_before_keeps_it() -> None:
    program = (
        "import sys, kubernetes; from inferencemodel_operator import lean; "
        "print(sys.modules['kubernetes'] is kubernetes)"
    )
    assert run(program) == "True"
