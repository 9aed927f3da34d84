"""What a release says of itself: licences, bills of materials, provenance, manifests."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import yaml

from release import archives, install, krew, licences, provenance, sbom, version
from release.errors import ReleaseError
from tests.support.crd import ROOT
from tests.unit.release.made import TREE, image, layer

if TYPE_CHECKING:
    from pathlib import Path

METADATA = """\
Metadata-Version: 2.4
Name: Some_Package
Version: 1.2
{fields}

A description that says License: nothing
"""
STATUS = """\
Package: zlib1g
Status: install ok installed
Version: 1:1.2.13.dfsg-1
Architecture: amd64
Description: compression
 License: not a field

Package: gone
Status: deinstall ok config-files
Version: 1
Architecture: amd64

Package: base
Status: install ok installed
Version: 12
Architecture: all
"""
COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
License: Zlib

Files: debian/*
License: GPL-2+
 The text.

License: GPL-2+
"""
REFERENCES = install.References(
    "registry.example.com/x",
    version.current(),
    {"operator": "sha256:" + "a" * 64, "poller": "sha256:" + "b" * 64},
)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("License-Expression: MIT\nLicense: something else", ("MIT",)),
        ("License: BSD-3-Clause", ("BSD-3-Clause",)),
        ("License: Copyright of somebody\n        and a long text", ()),
        (
            "Classifier: Topic :: A\nClassifier: License :: OSI Approved :: Apache License",
            ("Apache License",),
        ),
        ("Classifier: Topic :: A", ()),
    ],
)
def test_a_packages_licence_is_the_name_that_it_gives(
    fields: str, expected: tuple[str, ...]
) -> None:
    found = licences.python_package(METADATA.format(fields=fields))
    assert (found.name, found.version, found.licences) == ("Some_Package", "1.2", expected)


def test_debians_packages_are_those_that_are_installed() -> None:
    found = licences.debian_packages(STATUS)
    assert [(each.name, each.version, each.architecture) for each in found] == [
        ("base", "12", "all"),
        ("zlib1g", "1:1.2.13.dfsg-1", "amd64"),
    ]


def test_licences_of_debians_files_are_read_where_they_are_machine_readable() -> None:
    assert licences.debian_licences(COPYRIGHT) == ("Zlib", "GPL-2+")
    assert licences.debian_licences("License: whatever a text says") == ()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    texts = {
        "app/some_package-1.2.dist-info/METADATA": METADATA.format(fields="License: MIT"),
        "app/some_package-1.2.dist-info/licenses/LICENSE.txt": "The text",
        "app/some_package-1.2.dist-info/RECORD": "",
        "var/lib/dpkg/status": STATUS,
        "usr/share/doc/zlib1g/copyright": COPYRIGHT,
        "LICENSE": "The project's own",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_list_names_every_package_and_where_its_text_is(root: Path) -> None:
    listed = licences.table(licences.collect(root / "app", root)).splitlines()
    start = listed.index("Some_Package 1.2 (Python)")
    assert listed[start:] == [
        "Some_Package 1.2 (Python)",
        "    licences: MIT",
        "    text: /app/some_package-1.2.dist-info/licenses/LICENSE.txt",
        "base 12 (Debian)",
        "    licences: see the text",
        "zlib1g 1:1.2.13.dfsg-1 (Debian)",
        "    licences: Zlib, GPL-2+",
        "    text: /usr/share/doc/zlib1g/copyright",
    ]


def test_the_list_gets_into_the_image_with_the_projects_own_licence(root: Path) -> None:
    licences.main(root / "app", root / "LICENSE")
    assert (root / "app/licences/LICENSE").read_text() == "The project's own"
    assert "Some_Package 1.2" in (root / "app/licences/LICENCES.txt").read_text()


def test_a_bill_of_materials_tells_what_is_in_the_image_not_what_was_asked_for() -> None:
    made = image(
        layer(
            {
                "var/lib/dpkg/status": STATUS.encode(),
                "usr/share/doc/zlib1g/copyright": COPYRIGHT.encode(),
                "usr/lib/os-release": b'ID=debian\nVERSION_ID="12"\n',
                "app/gone-1.dist-info/METADATA": b"Name: gone\nVersion: 1\n\n",
            },
            0,
        ),
        layer(
            {
                "app/.wh.gone-1.dist-info": b"",
                "app/a-1.dist-info/METADATA": METADATA.format(fields="License: MIT").encode(),
                "app/a/vendored/b-1.dist-info/METADATA": b"",
            },
            0,
        ),
    )
    bill = json.loads(sbom.document("operator", made, TREE))
    assert [(each["purl"], each.get("licenses")) for each in bill["components"]] == [
        ("pkg:pypi/some-package@1.2", [{"license": {"name": "MIT"}}]),
        ("pkg:deb/debian/base@12?arch=all&distro=debian-12", None),
        (
            "pkg:deb/debian/zlib1g@1%3A1.2.13.dfsg-1?arch=amd64&distro=debian-12",
            [{"license": {"name": "Zlib"}}, {"license": {"name": "GPL-2+"}}],
        ),
    ]
    subject = bill["metadata"]["component"]
    assert subject["hashes"] == [{"alg": "SHA-256", "content": made.digest.removeprefix("sha256:")}]
    assert sbom.document("operator", made, TREE) == sbom.document("operator", made, TREE)


def test_the_provenance_says_what_was_made_of_which_commit_and_locks() -> None:
    made = json.loads(
        provenance.statement(
            {"b": "2", "a": "1"},
            TREE,
            parameters={"version": "1.2.3"},
            materials={"requirements/operator.lock": "3"},
            repository="https://example.com/x",
        )
    )
    assert made["subject"] == [
        {"name": "a", "digest": {"sha256": "1"}},
        {"name": "b", "digest": {"sha256": "2"}},
    ]
    definition = made["predicate"]["buildDefinition"]
    assert definition["resolvedDependencies"] == [
        {"uri": "git+https://example.com/x", "digest": {"gitCommit": TREE.commit}},
        {"uri": "file:requirements/operator.lock", "digest": {"sha256": "3"}},
    ]
    assert definition["internalParameters"] == {}


def test_the_provenance_of_a_trial_admits_what_is_in_no_commit() -> None:
    tree = replace(TREE, changes=("a.py",))
    made = json.loads(provenance.statement({}, tree, parameters={}, materials={}))
    assert made["predicate"]["buildDefinition"]["internalParameters"] == {"changes": ["a.py"]}


def test_the_manifest_pulls_both_images_by_digest() -> None:
    rendered = (ROOT / "manifests/base/deployment.yaml").read_text()
    written = install.manifest(rendered, REFERENCES)
    container = yaml.safe_load(written)["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "registry.example.com/x/operator@sha256:" + "a" * 64
    assert "--poller-image=registry.example.com/x/poller@sha256:" + "b" * 64 in container["args"]
    assert written.startswith("# InferenceModel")


def test_a_manifest_without_the_images_of_the_version_is_no_release() -> None:
    rendered = (ROOT / "manifests/base/deployment.yaml").read_text()
    with pytest.raises(ReleaseError, match=r"inferencemodel/operator:9\.9\.9' stands 0 times"):
        install.manifest(rendered, replace(REFERENCES, version="9.9.9"))


def test_the_charts_values_have_each_image_with_its_own_digest() -> None:
    values = (ROOT / "charts/inferencemodel-operator/values.yaml").read_text()
    made = yaml.safe_load(install.chart_values(values, REFERENCES))
    for key, name in (("image", "operator"), ("pollerImage", "poller")):
        assert made[key]["repository"] == f"registry.example.com/x/{name}"
        assert made[key]["digest"] == REFERENCES.digests[name]
    former = yaml.safe_load(values)
    assert {k: v for k, v in made.items() if k not in ("image", "pollerImage")} == {
        k: v for k, v in former.items() if k not in ("image", "pollerImage")
    }


def test_artifact_hub_is_told_the_images_and_the_definition() -> None:
    description = (ROOT / "charts/inferencemodel-operator/Chart.yaml").read_text()
    notes = yaml.safe_load(install.chart_description(description, REFERENCES))["annotations"]
    assert yaml.safe_load(notes["artifacthub.io/images"]) == [
        {"name": name, "image": REFERENCES.pinned(name)} for name in ("operator", "poller")
    ]
    (told,) = yaml.safe_load(notes["artifacthub.io/crds"])
    definition = yaml.safe_load((ROOT / "crds/inferencemodel.yaml").read_text())
    assert told["name"] == definition["metadata"]["name"]
    assert told["kind"] == definition["spec"]["names"]["kind"]
    assert told["version"] in [each["name"] for each in definition["spec"]["versions"]]
    assert all(isinstance(value, str) for value in notes.values())


def test_the_charts_alerts_lead_to_the_runbooks_of_the_release() -> None:
    rules = (ROOT / "charts/inferencemodel-operator/files/alerts.yaml").read_text()
    made = install.chart_alerts(rules, "https://example.com/x/blob/v1.2.3")
    page = "runbook_url: https://example.com/x/blob/v1.2.3/docs/runbooks.md#"
    assert made.count(page) == rules.count("runbook_url: ") == rules.count("- alert: ")
    with pytest.raises(ReleaseError, match="no alert names a runbook"):
        install.chart_alerts(made, "https://example.com")


def test_the_chart_is_one_folder_and_the_same_each_time() -> None:
    folder = ROOT / "charts" / "inferencemodel-operator"
    base = "https://example.com/x/blob/v1.2.3"
    made = install.chart(folder, REFERENCES, base, TREE.epoch)
    assert made == install.chart(folder, REFERENCES, base, TREE.epoch)
    with tarfile.open(fileobj=io.BytesIO(made)) as archive:
        names = set(archive.getnames())
        assert {entry.mtime for entry in archive} == {TREE.epoch}
    expected = {
        f"inferencemodel-operator/{path.relative_to(folder)}"
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert names == expected


def test_krews_manifest_is_about_the_archive_that_it_names() -> None:
    packed = krew.archive(ROOT, b"wheel", "inferencemodel-1-py3-none-any.whl", TREE.epoch)
    made = yaml.safe_load(
        krew.manifest("1.2.3", "https://example.com/x", "a.tar.gz", archives.digest(packed))
    )
    assert made["metadata"]["name"] == "inferencemodel"
    (platform,) = made["spec"]["platforms"]
    assert platform["uri"] == "https://example.com/x/releases/download/v1.2.3/a.tar.gz"
    assert platform["sha256"] == archives.digest(packed)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert archive.getmember(platform["bin"]).mode == 0o755
        assert "inferencemodel-1-py3-none-any.whl" in archive.getnames()


def test_completion_installs_nothing_in_the_middle_of_a_word(tmp_path: Path) -> None:
    packed = krew.archive(ROOT, b"wheel", "inferencemodel-1-py3-none-any.whl", TREE.epoch)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(tmp_path / "krew", filter="data")
    link = tmp_path / "kubectl_complete-inferencemodel"
    link.symlink_to(tmp_path / "krew" / "kubectl-inferencemodel")
    for program in (link, tmp_path / "krew" / link.name):
        done = subprocess.run(
            [program, "why", ""],
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "cache").exists()
