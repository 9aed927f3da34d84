"""The site is built without a warning, downloads nothing, and leaves nothing out."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from inferencemodel_operator.conditions import Reason
from inferencemodel_operator.metrics import Metrics
from model_poller.metrics import METRICS
from tests.support.crd import CRD, EXAMPLES, ROOT
from tests.support.pages import MARK

if TYPE_CHECKING:
    from pathlib import Path

_LOADED = re.compile(
    r"<(?:script|img|iframe|source)[^>]+src=\"(?!data:)(?:https?:)?//[^\"]+\"|"
    r"<link[^>]+rel=\"(?:stylesheet|preconnect|icon|preload)\"[^>]+href=\"(?:https?:)?//[^\"]+\"|"
    r"@import|url\((?:\"|')?https?://"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [
            # Not quiet: that would keep what is strict from counting warnings.
            *(sys.executable, "-m", "mkdocs", "build", "--strict"),
            *(f"--config-file={ROOT / 'mkdocs.yml'}", f"--site-dir={directory}"),
        ],
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return directory


def test_no_page_downloads_anything_from_elsewhere(site: Path) -> None:
    for page in [*site.glob("*.html"), *site.rglob("*.css")]:
        assert not _LOADED.findall(page.read_text()), page


def test_no_page_shows_what_blocks_are_marked_with(site: Path) -> None:
    for page in site.glob("*.html"):
        assert not MARK.search(html.unescape(page.read_text())), page


def test_every_page_can_be_reached_from_the_navigation(site: Path) -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    listed = {
        page
        for entry in config["nav"]
        for value in entry.values()
        for page in ([value] if isinstance(value, str) else [p for e in value for p in e.values()])
    }
    written = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert written <= listed


def test_the_reference_has_every_field_of_the_crd(site: Path) -> None:
    shown = (site / "reference.html").read_text()
    version = yaml.safe_load(CRD.read_text())["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]["properties"]

    def paths(path: str, node: dict[str, object]) -> list[str]:
        found = []
        properties = node.get("properties", {})
        assert isinstance(properties, dict)
        for name, field in properties.items():
            whole = f"{path}.{name}"
            found.append(whole)
            inner = field.get("items", field)
            found += paths(f"{whole}[]" if inner is not field else whole, inner)
        return found

    fields = [*paths("spec", schema["spec"]), *paths("status", schema["status"])]
    assert len(fields) > 100
    for field in fields:
        assert f"<code>{field}</code>" in shown


def test_every_example_is_on_the_site(site: Path) -> None:
    shown = (site / "examples.html").read_text()
    for path in EXAMPLES.rglob("*.yaml"):
        assert f"{path.relative_to(EXAMPLES).as_posix()}<" in shown


def test_every_reason_is_explained() -> None:
    text = (ROOT / "docs" / "conditions.md").read_text()
    assert [reason.value for reason in Reason if f"`{reason.value}`" not in text] == []


@pytest.mark.parametrize("registry", [Metrics().registry, METRICS.registry])
def test_every_metric_is_explained_with_its_labels(registry: object) -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    for name, collector in registry._names_to_collectors.items():  # type: ignore[attr-defined]
        if name.startswith("process_") or name.endswith(("_created", "_bucket", "_count", "_sum")):
            continue
        labels = getattr(collector, "_labelnames", ())
        of = f"{{{','.join(labels)}}}" if labels else ""
        if getattr(collector, "_type", "") == "counter" and not name.endswith("_total"):
            continue
        assert f"`{name}{of}`" in text
