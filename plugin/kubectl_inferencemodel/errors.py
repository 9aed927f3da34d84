"""Everything that ends a command with a message::

PluginError
+-- ClusterError       the API server can't be asked, or refuses
|   +-- NotFoundError     there is no such object
|   +-- ForbiddenError    who asks may not
|   +-- ConflictError     the object was changed meanwhile
|   +-- GoneError         what was seen last is too long ago to be gone on from
|   +-- UnavailableError  not now; waiting may help
|       +-- UnwatchableError    who asks may not watch; listing again and again may do
+-- AnswerError        a model server's answer, or a file, is not what it should be
|   +-- ServerError       a model server refuses
+-- RefusedError       there is nothing that the command could act on
"""

from __future__ import annotations


class PluginError(Exception):
    """The message says what was wrong and what to do."""


class ClusterError(PluginError):
    """The API server refuses, or can't be asked."""


class NotFoundError(ClusterError):
    """There is no such object."""


class ForbiddenError(ClusterError):
    """Who asks may not."""


class ConflictError(ClusterError):
    """The object is no longer as it was read."""


class GoneError(ClusterError):
    """What was seen last is too long ago; list it again."""


class UnavailableError(ClusterError):
    """The API server can't be asked now; waiting may help."""


class UnwatchableError(UnavailableError):
    """Who asks may not watch; listing again and again may do."""


class AnswerError(PluginError):
    """A model server's answer, or a file that was named, is not what it should be."""


class ServerError(AnswerError):
    """A model server answers with another status than 200."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class RefusedError(PluginError):
    """There is nothing that the command could act on."""
