"""The tool that reads web pages: what `http.request` says of addresses, limits and errors holds for it too."""

import asyncio
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Annotated
from urllib.parse import urljoin

from cssselect import SelectorError
from lxml import etree, html
from lxml.cssselect import CSSSelector
from pydantic import Field
from typing_extensions import TypedDict

from comagent.errors import ArgumentError, ComAgentError
from comagent.tools.base import tool
from comagent.tools.fetching import Fetched, fetch, shown
from comagent.tools.http import Expect, Follow, MaxBytes, TimeoutS, prepared
from comagent.tools.sizes import MIB, TooLargeError

__all__ = ["Link", "Match", "NotHtmlError", "Page", "scrape"]

_TOOL = "http.scrape"
_HTML = ("", "text/html", "application/xhtml+xml")
_UNSEEN = ("noscript", "script", "style", "template")
_BLOCKS = frozenset(
    (
        *("address", "article", "aside", "blockquote", "body", "br", "caption", "dd", "details", "dialog", "div"),
        *("dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6"),
        *("header", "hr", "li", "main", "nav", "ol", "option", "p", "pre", "section", "summary", "table", "tbody"),
        *("tfoot", "thead", "tr", "ul"),
    )
)
"""Elements that begin and end a line of text."""
_CELLS = frozenset(("td", "th"))
_META = re.compile(rb"<meta[^>]{0,200}charset", re.IGNORECASE)


class Link(TypedDict):
    url: str
    """Absolute; only http and https."""
    text: str


class Match(TypedDict):
    text: str
    attributes: dict[str, str]


class Page(TypedDict):
    url: str
    """After redirects."""
    status: int
    title: str
    text: str
    """What people read, a line for each block."""
    links: list[Link]
    """Each URL once."""
    matches: list[Match]
    """The elements that `selector` selects; none without one."""


class NotHtmlError(ComAgentError):
    """What was to be read as a page is none."""

    def __init__(self, url: str, media_type: str) -> None:
        super().__init__(url, media_type)
        self.url = url
        self.media_type = media_type

    def __str__(self) -> str:
        return f"{self.url} is {self.media_type or 'empty'}, not HTML. Use http.request."


@tool(name=_TOOL, effects="none")
async def scrape(
    url: str,
    selector: str | None = None,
    *,
    limit: Annotated[int, Field(ge=1, le=100_000)] = 1_000,
    headers: dict[str, str] = {},  # noqa: B006  # never changed
    timeout_s: TimeoutS = 30.0,
    max_bytes: MaxBytes = 5 * MIB,
    follow: Follow = 5,
    expect: Expect | None = [200],  # noqa: B006  # never changed
) -> Page:
    """Read a web page: its title, its text and its links. Scripts do not run, and nothing else is loaded.

    With a CSS `selector`, text and links are those of the elements that it selects, and `matches` has the first
    `limit` of them, in the order of the page. Elements that are nested deeper than 256 levels are left out.

    `NotHtmlError` for other things than pages; else the errors of `http.request`. A status other than 200 is one of
    them, unless `expect` says otherwise.
    """
    select = _compiled(selector)
    asked = prepared(_TOOL, url, "GET", headers={"Accept": "text/html", **headers}, params={})
    try:
        async with asyncio.timeout(timeout_s):
            fetched = await fetch(asked, timeout_s=timeout_s, max_bytes=max_bytes, follow=follow, expect=expect)
            if fetched.media_type not in _HTML:
                raise NotHtmlError(shown(fetched.url), fetched.media_type)
            # lxml lets other threads run meanwhile.
            return await asyncio.to_thread(_page, fetched, select, limit=limit, max_bytes=max_bytes)
    except TimeoutError:
        raise TimeoutError(f"GET {shown(asked.url)}: the page could not be read within {timeout_s:g} s") from None


def _compiled(selector: str | None) -> CSSSelector | None:
    try:
        return None if selector is None else CSSSelector(selector, translator="html")
    except (SelectorError, etree.XPathError) as error:
        raise ArgumentError(_TOOL, f'"{selector}" is no CSS selector: {error}', "Correct it.") from None


def _page(fetched: Fetched, select: CSSSelector | None, *, limit: int, max_bytes: int) -> Page:
    try:
        root = html.document_fromstring(fetched.content, parser=_parser(fetched))
    except etree.ParserError:
        raise NotHtmlError(shown(fetched.url), "") from None
    title = " ".join(root.findtext(".//title", "").split())
    etree.strip_elements(root, *_UNSEEN, with_tail=False)
    etree.strip_tags(root, etree.Comment, etree.ProcessingInstruction)
    base = urljoin(str(fetched.url), next((tag.get("href", "") for tag in root.iter("base")), ""))
    body = root.find("body")
    whole = root if body is None else body
    found = [whole] if select is None else select(root)[:limit]
    texts: list[str] = []
    size = 0
    for element in found:
        texts.append("\n".join(_lines(element)))
        size += len(texts[-1])
        # Elements that are selected may contain each other, and the text of the inner ones then counts again.
        if size > max_bytes:
            raise TooLargeError(f"the text that was selected from {shown(fetched.url)}", max_bytes)
    matches: list[Match] = [
        {"text": text, "attributes": dict(element.attrib)} for element, text in zip(found, texts, strict=True)
    ]
    return {
        "url": str(fetched.url),
        "status": fetched.status,
        "title": title,
        "text": "\n".join(texts),
        "links": list(_links(found, base)),
        "matches": [] if select is None else matches,
    }


def _parser(fetched: Fetched) -> html.HTMLParser:
    with suppress(LookupError):  # it says something that is no encoding
        if fetched.charset:
            return html.HTMLParser(encoding=fetched.charset)
    # Else the parser finds out, but takes pages that do not say it for Latin-1.
    return html.HTMLParser(encoding=None if _META.search(fetched.content[:4_096]) else "utf-8")


def _lines(element: html.HtmlElement) -> Iterator[str]:
    """The text of an element as people see it, a line for each block."""
    parts: list[str] = []
    for event, inner in etree.iterwalk(element, events=("start", "end")):
        if inner.tag in _BLOCKS:
            parts.append("\0")
        elif inner.tag in _CELLS:
            parts.append(" ")
        if event == "start":
            parts.append(inner.text or "")
        elif inner is not element:
            parts.append(inner.tail or "")
    # No text of HTML contains a zero.
    lines = (" ".join(line.split()) for line in "".join(parts).split("\0"))
    return filter(None, lines)


def _links(found: Iterable[html.HtmlElement], base: str) -> Iterator[Link]:
    seen: set[str] = set()
    for element in found:
        for anchor in element.iter("a", "area"):
            try:
                url = urljoin(base, anchor.get("href", "").strip())
            except ValueError:
                continue
            if anchor.get("href") and url not in seen and url.startswith(("http://", "https://")):
                seen.add(url)
                yield {"url": url, "text": " ".join(_lines(anchor))}
