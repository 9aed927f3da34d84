"""Everything that ends a command with a message::

PluginError
+-- ClusterError       the API server can't be asked, or refuses
|   +-- NotFoundError  there is no such object
+-- AnswerError        a model server's answer, or a file, is not what it should be
"""

from __future__ import annotations


class PluginError(Exception):
    """The message says what was wrong and what to do."""


class ClusterError(PluginError):
    """The API server refuses, or can't be asked."""


class NotFoundError(ClusterError):
    """There is no such object."""


class UnavailableError(ClusterError):
    """The API server can't be asked now; waiting may help."""


class AnswerError(PluginError):
    """A model server's answer, or a file that was named, is not what it should be."""
