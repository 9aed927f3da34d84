"""What is really in an image, as CycloneDX 1.6: its packages of Python and of Debian."""

from __future__ import annotations

import json
import re
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from release import licences, oci

if TYPE_CHECKING:
    from release.licences import Package
    from release.oci import Image
    from release.tree import Tree

_STATUS = "var/lib/dpkg/status"
#: The first is mostly a link to the second.
_RELEASE = ("etc/os-release", "usr/lib/os-release")
#: No two images have the same serial number; the same image always has the same.
_SPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://inferencemodel.dev/sbom")


def packages(image: Image) -> list[Package]:
    """The packages in an image, by the records of pip and dpkg there."""
    found = oci.files(image, _of_interest)
    python = [
        licences.python_package(content.decode())
        for path, content in sorted(found.items())
        if path.endswith(".dist-info/METADATA")
    ]
    debian = []
    for package in licences.debian_packages(found.get(_STATUS, b"").decode()):
        text = found.get(f"usr/share/doc/{package.name}/copyright", b"").decode(errors="replace")
        named = licences.debian_licences(text)
        debian.append(
            licences.Package(
                package.name, package.version, named, architecture=package.architecture
            )
        )
    return [*python, *debian]


def document(name: str, image: Image, tree: Tree) -> bytes:
    """The bill of materials of one image.

    Args:
        name: the image's, such as ``operator``.
        image: what is read.
        tree: what it was made of.
    """
    suite = _suite(oci.files(image, lambda path: path in _RELEASE))
    made = datetime.fromtimestamp(tree.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    subject = {
        "bom-ref": "image",
        "type": "container",
        "name": f"inferencemodel-{name}",
        "version": tree.version,
        "hashes": [{"alg": "SHA-256", "content": image.digest.removeprefix("sha256:")}],
        "licenses": [{"license": {"id": "Apache-2.0"}}],
        "purl": f"pkg:oci/{name}@{quote(image.digest, safe='')}?arch={image.architecture}",
    }
    components = [_component(package, suite) for package in packages(image)]
    bill = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(_SPACE, image.digest).urn,
        "version": 1,
        "metadata": {"timestamp": made, "component": subject},
        "components": components,
        "dependencies": [
            {"ref": "image", "dependsOn": [component["bom-ref"] for component in components]}
        ],
    }
    return (json.dumps(bill, indent=1, sort_keys=True) + "\n").encode()


def _of_interest(path: str) -> bool:
    return (
        re.fullmatch(r"app/[^/]+\.dist-info/METADATA", path) is not None
        or path == _STATUS
        or (path.startswith("usr/share/doc/") and path.endswith("/copyright"))
    )


def _suite(found: dict[str, bytes]) -> str:
    text = b"\n".join(found.values()).decode()
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    version = values.get("VERSION_ID", "").strip('"')
    return f"debian-{version}" if version else "debian"


def _component(package: Package, suite: str) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "name": package.name,
        "version": package.version,
        "purl": _purl(package, suite),
        "bom-ref": _purl(package, suite),
    }
    if package.licences:
        component["licenses"] = [{"license": {"name": name}} for name in package.licences]
    return component


def _purl(package: Package, suite: str) -> str:
    """https://github.com/package-url/purl-spec."""
    version = quote(package.version, safe="")
    if package.architecture:
        named = quote(package.name, safe="")
        return f"pkg:deb/debian/{named}@{version}?arch={package.architecture}&distro={suite}"
    return f"pkg:pypi/{package.name.lower().replace('_', '-')}@{version}"
