"""What a web server shows of a folder: a page of links, or a list in JSON; pure."""

from __future__ import annotations

import codecs
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import unquote, urljoin, urlsplit

import msgspec

from model_poller.errors import InvalidSourceError
from model_poller.stores.credentials import without_secrets

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_SHOWN: Final = 500_000
"""Files and folders of one page, of which each takes some hundred bytes of memory and more: ten
times as many fit into a page that is read."""
_FIELDS: Final = 6
"""Of one of them in a list in JSON, on the average."""


class Shown(msgspec.Struct, frozen=True, rename={"path": "name"}):
    """One file or folder of a list in JSON; nginx's ``autoindex_format json`` has this form."""

    path: str
    """Below what shows it, with folders in it if the list has more than one."""
    type: str | None = "file"
    """``file`` or ``directory``."""
    size: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Bytes; None where it isn't shown."""
    mtime: str | None = None
    etag: str | None = None

    @property
    def is_folder(self) -> bool:
        """Whether it has to be looked into."""
        return self.type == "directory" or self.path.endswith("/")

    @property
    def name(self) -> str:
        """The path, free of what servers put around it."""
        return self.path.removeprefix("./").rstrip("/")

    @property
    def generation(self) -> str:
        """In double quotes, where it can be asked for: a weak ETag can't."""
        if not self.etag:
            return f"{self.mtime or ''}-{self.size}"
        return self.etag if self.etag.startswith(('"', "W/")) else f'"{self.etag}"'


class Odd(Shown, frozen=True):
    """One of which something is told that can't be."""

    fault: str = ""
    """See `StoredObject.fault`."""


class _Named(msgspec.Struct, rename={"path": "name"}):
    path: str
    type: Any = None


def read_list(body: bytes, where: str) -> Sequence[Shown]:
    """Read a list in JSON.

    Raises:
        InvalidSourceError: it is none, or too long, or something in it has no name.
    """
    # What isn't read by then takes no memory yet.
    if body.count(b"{") > MAX_SHOWN or body.count(b",") > _FIELDS * MAX_SHOWN:
        raise _too_many(where)
    # Some editors begin a text with a mark of its byte order.
    body = body.removeprefix(codecs.BOM_UTF8)
    try:
        try:
            return msgspec.json.decode(body, type=tuple[Shown, ...])
        except msgspec.ValidationError:
            return tuple(map(_read_one, msgspec.json.decode(body, type=list[msgspec.Raw])))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidSourceError(
            f"{where} shows JSON that is no list of files ({error}); it should be"
            ' [{"name": "1/saved_model.pb", "size": 1234, "etag": "…"}, …]'
        ) from error


def _read_one(told: msgspec.Raw) -> Shown:
    try:
        return msgspec.json.decode(told, type=Shown)
    except msgspec.ValidationError as error:
        named = msgspec.json.decode(told, type=_Named)
        shown = Shown(named.path, named.type if isinstance(named.type, str) else None)
        if shown.is_folder:
            # It is looked into, whatever else is told of it.
            return shown
        return Odd(named.path, size=0, fault=f"it is listed with what can't be ({error})")


def read_links(page: str, url: str) -> Sequence[Shown]:
    """Read the index of a folder: the links to what lies right below it.

    ``url`` is where the page was, at the end of all redirects. Indexes also link to what is above
    them, and to themselves in another order.

    Raises:
        InvalidSourceError: it has too many.
    """
    parser = _Links(url)
    parser.feed(page)
    origin, path = _split(url)
    folder = f"{path.rpartition('/')[0]}/"
    names: dict[str, None] = {}
    for target in parser.targets:
        plain = target.partition("#")[0].partition("?")[0]
        if _IS_NAME.fullmatch(plain):
            # Almost every link of almost every index, and joining URLs is slow.
            path = folder + _unquoted(plain.removeprefix("./"))
        else:
            try:
                found, path = _split(urljoin(url, plain))
            except ValueError:
                continue
            if found != origin:
                continue
        # Compared unquoted: what one server quotes, another doesn't.
        name = path.removeprefix(folder)
        if name != path and _IS_CHILD.fullmatch(name):
            names[name] = None
    return tuple(map(Shown, names))


_IS_NAME = re.compile(r"(?:\./)?[^/:.][^/:]*/?")
_IS_CHILD = re.compile(r"(?!\.\.?/?$)[^/]+/?", re.DOTALL)


def _split(url: str) -> tuple[tuple[str, str], str]:
    parts = urlsplit(url)
    return (parts.scheme, parts.netloc), _unquoted(parts.path)


def _unquoted(path: str) -> str:
    # Names need not be UTF-8; what stands for other bytes is quoted to the same bytes again.
    return unquote(path, errors="surrogateescape")


class _Links(HTMLParser):
    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.targets += [value for name, value in attrs if name == "href" and value]
            if len(self.targets) > MAX_SHOWN:
                raise _too_many(self._url)


def _too_many(where: str) -> InvalidSourceError:
    return InvalidSourceError(
        f"{without_secrets(where)} shows more than {MAX_SHOWN} files; give the versions of one"
        " model a folder of their own"
    )
