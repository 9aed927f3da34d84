"""A SavedModel in Protocol Buffers' text format, read for its tags and signatures alone.

https://protobuf.dev/reference/protobuf/textformat-spec
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from model_poller.checks import dtypes

if TYPE_CHECKING:
    import mmap

STRING: Final = rb"\"[^\"\\\n]*+(?:\\.[^\"\\\n]*+)*+\"|'[^'\\\n]*+(?:\\.[^'\\\n]*+)*+'"
GAP: Final = rb"[^#\"'A-Za-z0-9_{}<>]++"
"""What lies between words, strings, comments and blocks.

It is matched as such: to search for what follows takes thirty times as long, and no other thread
runs while one expression is matched.
"""
MANY: Final = rb"{0,10000}+"
"""So much of what is passed over is matched at once."""
MAX_DEPTH: Final = 200
"""Of blocks; the deepest field of a SavedModel lies in a tenth of it."""
MAX_NODES: Final = 100_000
"""Of what is kept."""
_TOKEN: Final = re.compile(
    rb"(?:" + GAP + rb"|\w++(?!\s*+(?::?+\s*+[{<]|:\s*+[-+.\w\"'])))" + MANY + rb"(?:"
    rb"(?P<skip>#[^\n]*+)"
    rb"|(?P<name>[A-Za-z_]\w*+)\s*+"
    rb"(?::?+\s*+(?P<opening>[{<])|:\s*+(?P<value>(?:(?:" + STRING + rb")\s*+)++|[-+.\w]++))"
    rb"|(?P<text>" + STRING + rb")"
    rb"|(?P<block>[{<])"
    rb"|(?P<closing>[}>])"
    rb"|(?P<rest>" + GAP + rb"|\w++|[\"']|\Z))"
)
"""Matches at every byte, so that nothing is searched for."""
_TAGS: Final = ["meta_graphs", "meta_info_def", "tags"]
_SIGNATURES: Final = ["meta_graphs", "signature_def"]


class TextNode:
    """A message of which the fields that are asked for were kept, by their names."""

    def __init__(self) -> None:
        self._fields: dict[str, list[TextNode | bytes]] = {}

    def add(self, name: str, content: TextNode | bytes) -> None:
        """Take in one field."""
        self._fields.setdefault(name, []).append(content)

    def all(self, number: int, name: str) -> list[TextNode]:  # noqa: ARG002
        """The messages in a field."""
        return [node for node in self._fields.get(name, ()) if isinstance(node, TextNode)]

    def text(self, number: int, name: str) -> str:
        """What a field of text says; empty where it is missing."""
        return (self.texts(number, name) or [""])[-1]

    def texts(self, number: int, name: str) -> list[str]:  # noqa: ARG002
        """All that a repeated field of text says."""
        return [unquoted(text) for text in self._fields.get(name, ()) if isinstance(text, bytes)]

    def number(self, number: int, name: str) -> int:  # noqa: ARG002
        """What a field of a number, a type or a truth says; 0 where it is missing.

        Raises:
            ValueError: it says none.
        """
        said = [word for word in self._fields.get(name, ()) if isinstance(word, bytes)]
        if not said:
            return 0
        word = said[-1].decode(errors="replace")
        if word in ("true", "True", "t", "false", "False", "f"):
            return int(word[0] in "tT")
        with suppress(ValueError):
            return dtypes.number(word)
        return int(word, 0)


def unquoted(literals: bytes) -> str:
    """What adjacent strings of the text format say: what isn't ASCII may stand in octal digits.

    Raises:
        ValueError: it is no text.
    """
    whole = b"".join(literal[1:-1] for literal in re.findall(STRING, literals))
    return whole.decode("unicode_escape").encode("latin-1").decode()


def read_text(data: mmap.mmap) -> TextNode:
    """The graphs of a SavedModel, with their tags and signatures.

    Raises:
        ValueError: it can't be read; says why.
    """
    top = TextNode()
    names: list[str] = []
    nodes: list[TextNode | None] = [top]
    kept = 0
    for token in _TOKEN.finditer(data):
        parent = nodes[-1]
        if token["closing"]:
            if not names:
                at = token.start("closing")
                raise ValueError(f"a block ends at byte {at} that never began")
            names.pop()
            nodes.pop()
        elif token["opening"] or token["block"]:
            if len(names) == MAX_DEPTH:
                raise ValueError(f"it has blocks in more than {MAX_DEPTH} others")
            name = (token["name"] or b"").decode()
            names.append(name)
            node = TextNode() if parent is not None and _is_wanted(names) else None
            if parent is not None and node is not None:
                parent.add(name, node)
                kept += 1
            nodes.append(node)
        elif parent is not None and token["value"] is not None:
            name = token["name"].decode()
            if _is_wanted([*names, name]):
                parent.add(name, bytes(token["value"]).strip())
                kept += 1
        if kept > MAX_NODES:
            raise ValueError(f"its signatures have more than {MAX_NODES} fields")
    if names:
        raise ValueError(f"it ends inside a block: {names[-1]}")
    return top


def _is_wanted(path: list[str]) -> bool:
    """Whether a field is one of those that are kept, or on the way to them."""
    return path == _TAGS[: len(path)] or path[:2] == _SIGNATURES[: len(path)]
