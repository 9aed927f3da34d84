"""Links lead somewhere in the repository too, where pages are read without the site."""

from __future__ import annotations

import re
from itertools import chain

from tests.support.pages import PAGES, ROOT

LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """What the headings of a page are called in an address, as GitHub and the site have it."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", words).strip().lower().replace(" ", "-") for words in plain}


def test_every_link_within_the_repository_leads_to_a_file_and_a_heading() -> None:
    pages = chain(PAGES, ROOT.glob("*.md"), ROOT.glob("*/README.md"))
    texts = {page: page.read_text() for page in pages}
    dead = []
    for page, text in texts.items():
        for link in LINK.findall(FENCE.sub("", text)):
            path, _, anchor = link.partition("#")
            if re.match(r"\w+:", link):
                continue
            target = (page.parent / path).resolve() if path else page
            # Of pictures, the site takes what is behind the # for light and dark.
            is_page = target.suffix == ".md" and anchor
            if not target.exists() or (is_page and anchor not in anchors(target.read_text())):
                dead.append(f"{page.name}: {link}")
    assert dead == []
