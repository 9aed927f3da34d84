"""Where a release comes from: an in-toto statement with SLSA's provenance, not signed here.

https://in-toto.io/Statement/v1, https://slsa.dev/spec/v1.0/provenance. It says nothing of the
machine and the time, so that who builds the same commit gets the same statement; who signs it
vouches for the builder.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from release.tree import Tree

BUILDER = "https://inferencemodel.dev/release/local"
_KIND = "https://inferencemodel.dev/release/make/v1"


def statement(
    subjects: Mapping[str, str],
    tree: Tree,
    *,
    parameters: Mapping[str, str],
    materials: Mapping[str, str],
    repository: str = "",
    builder: str = BUILDER,
) -> bytes:
    """The statement.

    Args:
        subjects: SHA-256 of what was made, by name.
        tree: what it was made of.
        parameters: what ``make release`` was told.
        materials: SHA-256 of what says which packages get in, by the file's name in the tree.
        repository: the address of the project's repository; empty where it has none.
        builder: who made it, as a URI.
    """
    source = {
        "uri": f"git+{repository}" if repository else "git+file:.",
        "digest": {"gitCommit": tree.commit},
    }
    locks = [
        {"uri": f"file:{name}", "digest": {"sha256": digest}}
        for name, digest in sorted(materials.items())
    ]
    # A trial's files are in no commit: who reads the statement has to know.
    changes = {"changes": list(tree.changes)} if tree.changes else {}
    content = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": name, "digest": {"sha256": digest}}
            for name, digest in sorted(subjects.items())
        ],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": _KIND,
                "externalParameters": dict(parameters),
                "internalParameters": changes,
                "resolvedDependencies": [source, *locks],
            },
            "runDetails": {"builder": {"id": builder}},
        },
    }
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
