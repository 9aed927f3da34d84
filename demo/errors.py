"""What can go wrong in the demo.

DemoError
 +- ModelError         the model or the photo could not be made
 |   +- CheckpointError    a weights file is not what it should be
 +- ClusterError       the cluster, or a tool that talks to it, failed
 +- LoadError          requests can't be sent at all (module load)
 +- OutcomeError       all ran, but what was seen is not what had to be seen
"""

from __future__ import annotations


class DemoError(Exception):
    """The demo cannot go on; the message says what failed and what to do."""


class ModelError(DemoError):
    """The demo's model or photo could not be made."""


class CheckpointError(ModelError):
    """A weights file holds something else than the tensors it should."""


class ClusterError(DemoError):
    """The cluster, or a program that talks to it, failed."""


class OutcomeError(DemoError):
    """Everything ran, but a promise of the demo did not hold."""
