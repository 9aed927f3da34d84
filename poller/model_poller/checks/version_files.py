"""All that a version's files are checked for before it is taken, or published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_poller.checks import integrity, manifest, variables

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from model_poller.checks.signature import PublicKey


@dataclass(frozen=True, slots=True)
class Claim:
    """What a version has to be and to prove."""

    version: int
    models: Collection[str] = ()
    """The names that a signature may be for; see `manifest.check`."""
    manifest: bool = False
    """Whether it needs a SHA256SUMS; one that is there is always checked."""
    public_key: PublicKey | None = None
    """Which has to have signed it."""
    marker: str | None = None
    """The file that ends an upload, which the manifest can't list."""


def check(folder: Path, claim: Claim, *, may_grow: bool, stopped: Callable[[], bool]) -> None:
    """Check the files of one version, which lie in a folder of this machine.

    ``may_grow`` is `manifest.check`'s.

    Raises:
        As `integrity.check_folder`, `manifest.check` and `variables.check_tensors`.
    """
    integrity.check_folder(folder)
    manifest.check(
        folder,
        version=claim.version,
        models=claim.models,
        required=claim.manifest,
        key=claim.public_key,
        marker=claim.marker,
        may_grow=may_grow,
        stopped=stopped,
    )
    variables.check_tensors(folder, stopped)
