"""Pages of the site that are made of other files: the CRD's fields, the examples, the figures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
CRD = ROOT / "crds" / "inferencemodel.yaml"
EXAMPLES = ROOT / "examples"
OPERATOR_FIGURES = ROOT / "bench" / "results" / "operator.json"
SCALE_FIGURES = ROOT / "bench" / "results" / "scale.json"
_MARK = re.compile(r"^ *<!-- (?:not )?run\b.*-->\n\n?", re.MULTILINE)
"""What a block of commands is marked with for tests, as tests/support/pages.py has it."""
_OUTSIDE = re.compile(r"\]\(\.\./examples/([^)#]*)\)")
_MADE_OF = {
    "../crds/inferencemodel.yaml": "reference.md",
    "../bench/results/operator.json": "figures.md",
    "../bench/results/scale.json": "figures.md#one-operator-and-two-shards",
}
"""What links of the pages lead to in the repository, and on the site."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages; mkdocs calls it."""
    for name, content in (
        ("reference.md", reference()),
        ("examples.md", examples()),
        ("figures.md", figures()),
    ):
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(
    markdown: str,
    page: Page,  # noqa: ARG001  # mkdocs gives it by name
    config: MkDocsConfig,  # noqa: ARG001
    files: Files,  # noqa: ARG001
) -> str:
    """Let links into the repository lead to the pages that are made of it, without marks for tests.

    mkdocs calls it.
    """
    for path, made in _MADE_OF.items():
        markdown = markdown.replace(f"]({path})", f"]({made})")
    return _OUTSIDE.sub(lambda found: f"](examples.md{_anchor(found[1])})", _MARK.sub("", markdown))


def reference() -> str:
    """Every field of the CRD, as its own descriptions tell."""
    crd = yaml.safe_load(CRD.read_text())
    version = crd["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    lines = [
        "# Every field",
        "",
        f"Of `{crd['spec']['group']}/{version['name']}`, made from the CRD itself; "
        "[InferenceModel](inferencemodel.md) explains how they work together. "
        "`kubectl explain inferencemodel.spec` prints the same.",
    ]
    for part in ("spec", "status"):
        lines += ["", f"## {part}", "", "| field | type | meaning |", "|---|---|---|"]
        for path, field, required in _fields(part, schema["properties"][part]):
            lines.append(f"| `{path}` | {_type(field, required=required)} | {_meaning(field)} |")
    lines += ["", "## Rules", "", "What the API server refuses, in its own words:", ""]
    for path, message in _rules("", schema):
        lines.append(f"- `{path or 'the resource'}`: {message}")
    return "\n".join([*lines, ""])


def examples() -> str:
    """Every file of examples/, whole."""
    lines = [
        "# Examples",
        "",
        "From the repository's folder `examples/`. Tests apply each resource to a real API server.",
    ]
    for path in sorted(EXAMPLES.rglob("*")):
        if path.is_file():
            name = path.relative_to(EXAMPLES).as_posix()
            language = {".yaml": "yaml", ".yml": "yaml", ".sh": "bash"}.get(path.suffix, "text")
            fence = "`" * 4
            lines += ["", f"## {name}", "", f"{fence}{language}", path.read_text().rstrip(), fence]
    return "\n".join([*lines, ""])


def figures() -> str:
    """The operator's last measurement, as `make bench-operator` recorded it."""
    found = json.loads(OPERATOR_FIGURES.read_text())
    lines = [
        "# Figures",
        "",
        f"Measured {found['measured'][:10]} on {found['cpus']} CPUs ({found['machine']}) by "
        "`make bench-operator`: the operator and a real API server share them.",
        "",
        "## Many resources at once",
        "",
        "All resources are created at once by 20 writers. The floor is a bare script with 20 "
        "writers that creates the same children, measured in the same run.",
        "",
        "| resources | all children exist after | floor | ratio | API requests each | memory |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['resources']:,} | {r['seconds']:.1f} s | {r['floor_seconds']:.1f} s | "
        f"{r['ratio']:.2f} | {r['requests_each']:g}, for {r['children']} children | "
        f"{r['memory_mb']:.0f} MB |"
        for r in found["creation"]
    ]
    lines += [
        "",
        "![Time until all children exist](plots/operator-time.svg)",
        "",
        "![Memory](plots/operator-memory.svg)",
        "",
        "## A restart, and a change",
        "",
        "| resources | quiet after a restart | writes of the restart | a spec change is applied "
        "(95th percentile) |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {r['resources']:,} | {restart['seconds']:.1f} s | {restart['writes']} | "
        f"{change['p95'] * 1000:.0f} ms |"
        for r, restart, change in zip(
            found["creation"], found["restart"], found["spec_change"], strict=True
        )
    ]
    fleet = found["fleet"]
    lines += [
        "",
        "## At rest",
        "",
        f"{fleet['resources']:,} models with three reporting pods each, for {fleet['seconds']} s: "
        f"{fleet['core_percent']:.1f} % of a core, {fleet['memory_mb']:.0f} MB, "
        f"{fleet['writes']} writes. A version change on any pod is in the status after "
        f"{fleet['version_change']['p95'] * 1000:.0f} ms (95th percentile).",
    ]
    return "\n".join([*lines, "", *scale(), ""])


def scale() -> list[str]:
    """The last measurement of one operator beside two shards, as `make bench-scale` recorded it."""
    found = json.loads(SCALE_FIGURES.read_text())
    lines = [
        "## One operator, and two shards",
        "",
        f"Measured {found['measured'][:10]} on {found['cpus']} CPUs ({found['machine']}) by "
        "`make bench-scale`, with three reporting pods each; [what it means](scale.md).",
        "",
        "| models | all children exist after | operator of | RSS | PSS | of a core at rest | quiet "
        "after a restart | requests of the restart | polls a second | a version change is in the "
        "status (median, 95th percentile) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for size in found["sizes"]:
        for look in (size["one"], size["shards"]):
            change = look["version_change"]
            lines += [
                f"| {size['models']:,} | {size['creation']['seconds']:.0f} s | {o['models']:,} | "
                f"{o['memory_mb']:.0f} MB | {o['proportional_mb']:.0f} MB | "
                f"{o['core_percent']:.1f} % | {o['quiet_seconds']:.1f} s | {o['requests']:,} | "
                f"{o['polls_a_second']:.0f} | {change['median'] * 1000:.0f} ms, "
                f"{change['p95'] * 1000:.0f} ms |"
                for o in look["operators"]
            ]
    return [*lines, "", "![Memory and processor time](plots/operator-scale.svg)"]


def _anchor(name: str) -> str:
    """The anchor of an example's heading, as the toc extension makes it."""
    slug = re.sub(r"[^\w\s-]", "", name.strip("/")).strip().lower()
    return f"#{slug}" if slug else ""


def _fields(path: str, schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], bool]]:
    needed = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        whole = f"{path}.{name}"
        yield whole, field, name in needed
        if field.get("type") == "array":
            yield from _fields(f"{whole}[]", field["items"])
        else:
            yield from _fields(whole, field)


def _type(field: dict[str, Any], *, required: bool) -> str:
    kind = str(field.get("type", "integer or string"))
    if "enum" in field:
        kind = ", ".join(f"`{value}`" for value in field["enum"])
    elif kind == "array":
        kind = f"list of {field['items'].get('type', 'integer or string')}s"
    elif "additionalProperties" in field:
        kind = "map"
    limits = [
        f"{word} {field[key]}"
        for key, word in (("minimum", "at least"), ("maximum", "at most"))
        if key in field and abs(field[key]) < 2**31 - 1
    ]
    default = field.get("default")
    shown = [f"default `{_yaml(default)}`"] if default is not None else []
    return ", ".join([kind, *limits, *shown, *(["required"] if required else [])])


def _yaml(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()


def _meaning(field: dict[str, Any]) -> str:
    return " ".join(str(field.get("description", "")).split()).replace("|", "\\|")


def _rules(path: str, schema: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for rule in schema.get("x-kubernetes-validations", []):
        yield path, " ".join(rule["message"].split())
    for name, field in schema.get("properties", {}).items():
        whole = f"{path}.{name}" if path else name
        yield from _rules(whole, field)
        if field.get("type") == "array":
            yield from _rules(f"{whole}[]", field["items"])
