"""Answers in XML, as S3, STS and Azure give them."""

from __future__ import annotations

import re

# Python's expat refuses what grows while it is read, and external parts are never loaded.
import xml.etree.ElementTree as ET
from typing import TypeAlias

Element: TypeAlias = ET.Element
_SIZE = re.compile(r"[0-9]{1,19}")


def parse_xml(body: bytes) -> Element | None:
    """The root of a document, with all names freed of their namespace; None where it is none."""
    try:
        root = ET.fromstring(body)  # noqa: S314
    except (ET.ParseError, LookupError, ValueError):
        # The latter two: in an encoding that nobody knows.
        return None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def size(element: Element, name: str) -> tuple[int, str]:
    """The bytes that an element tells, and what is wrong with that, see `StoredObject.fault`."""
    told = text(element, name)
    if not _SIZE.fullmatch(told):
        return 0, f"it is listed with {told[:50]!r}, which is no {name}"
    return int(told), ""


def content(element: Element, name: str) -> str:
    """What stands in a child, blanks at its ends included, as names may have them."""
    return element.findtext(name) or ""


def text(element: Element, path: str) -> str:
    """What stands in the first element of a path, at any depth below; empty without one."""
    return (element.findtext(f".//{path}") or "").strip()
