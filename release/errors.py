"""What can go wrong with a release.

ReleaseError
    TreeError: the tree is not the one that is to be released
    ProgramError: a program that makes a part of it failed
    AuditError: a known vulnerability, or nobody who could tell of one
"""

from __future__ import annotations


class ReleaseError(Exception):
    """What stopped the release; the message says what to do."""


class TreeError(ReleaseError):
    """The tree has another version than was asked for, or changes that are in no commit."""


class ProgramError(ReleaseError):
    """A program that makes a part of the release failed; the message is its own."""


class AuditError(ReleaseError):
    """A dependency has a known vulnerability, or none could be asked for."""
