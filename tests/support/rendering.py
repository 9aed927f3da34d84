"""What an install consists of, as helm and kustomize render it: objects by kind and name."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from tests.support.crd import ROOT

if TYPE_CHECKING:
    from pathlib import Path

Object = dict[str, Any]
Objects = dict[tuple[str, str, str], Object]
"""By kind, namespace (empty for what has none) and name."""

CHART = ROOT / "charts" / "inferencemodel-operator"
MANIFESTS = ROOT / "manifests"
SYSTEM = "inferencemodel-system"
WITH_MONITORING = [f"monitoring.{part}=true" for part in ("monitors", "alerts", "dashboard")]
"""The chart's values for everything that watches over the operator."""


@dataclass(frozen=True)
class Programs:
    """helm, kubectl and promtool."""

    helm: Path
    kubectl: Path
    promtool: Path

    def chart(
        self, *values: str, namespace: str = SYSTEM, release: str = "inferencemodel"
    ) -> Objects:
        """What the chart installs, with some values (``name=value``)."""
        options = [f"--set={value}" for value in values]
        rendered = run(
            *(self.helm, "template", release, CHART, f"--namespace={namespace}"),
            *options,
        )
        return _objects(rendered)

    def kustomize(self, directory: Path) -> Objects:
        """What a kustomization installs."""
        return _objects(
            run(self.kubectl, "kustomize", "--load-restrictor=LoadRestrictionsNone", directory)
        )


def run(*argv: str | Path, code: int = 0) -> str:
    """Run a program that has to end with ``code``; what it printed on stdout."""
    done = subprocess.run(
        [str(argument) for argument in argv],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == code, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def _objects(rendered: str) -> Objects:
    return {
        (obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"]): obj
        for obj in yaml.safe_load_all(rendered)
        if obj is not None
    }
