"""The tool for HTTP requests: to the public internet, and to what `COMAGENT_HTTP_ALLOW` names.

Neither the machine itself nor private networks nor the places where clouds hand out credentials can be reached, under
whatever name, by whatever redirect; `comagent.tools.addresses` says what the setting may hold.
"""

import base64
import codecs
import re
import time
from typing import Annotated, Any, Literal, NotRequired

import httpx2
from pydantic import Field
from pydantic_core import from_json
from typing_extensions import TypedDict

from comagent.errors import ArgumentError
from comagent.tools.base import ToolContext, tool
from comagent.tools.fetching import Fetched, fetch
from comagent.tools.sizes import MIB

__all__ = ["Answer", "Expect", "Follow", "MaxBytes", "TimeoutS", "prepared", "request"]

TimeoutS = Annotated[float, Field(gt=0)]
MaxBytes = Annotated[int, Field(gt=0, le=256 * MIB)]
Follow = Annotated[int, Field(ge=0, le=20)]
Expect = list[Annotated[int, Field(ge=100, le=599)]]
Scalar = str | int | float | bool

_JSON = re.compile(r"(application|text)/(.+\+)?json")
_TEXT = re.compile(r"text/.*|application/(.+\+)?(xml|yaml|javascript|x-www-form-urlencoded|x-ndjson)")
_FRAMING = frozenset(("connection", "content-length", "host", "transfer-encoding", "upgrade"))
_NO_CHARSETS = frozenset(("idna", "punycode", "raw_unicode_escape", "undefined", "unicode_escape"))
"""Codecs of Python that make text of bytes, but are no character sets; some are slow on purpose-made data."""


class Answer(TypedDict):
    status: int
    url: str
    """Of the answer, after redirects."""
    headers: dict[str, str]
    """Names are in lower case; what was sent several times is joined by commas."""
    json: NotRequired[Any]
    """The body, if it says that it is JSON, and is."""
    text: NotRequired[str]
    """The body, if it is other text."""
    base64: NotRequired[str]
    """The body, if it is neither."""
    elapsed_s: float


@tool(name="http.request", effects="some")
async def request(
    url: str,
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "GET",
    *,
    headers: dict[str, str] = {},  # noqa: B006  # never changed, as are the others
    params: dict[str, Scalar | list[Scalar]] = {},  # noqa: B006
    json: Any = None,
    body: str | None = None,
    timeout_s: TimeoutS = 30.0,
    max_bytes: MaxBytes = 10 * MIB,
    follow: Follow = 5,
    expect: Expect | None = None,
    context: ToolContext | None = None,
) -> Answer:
    """Send an HTTP request, and give the answer, whatever its status.

    The answer's body is in exactly one of `json`, `text` and `base64`. What can be reached is the public internet, and
    the hosts and networks that `COMAGENT_HTTP_ALLOW` names where the task runs: `host`, `host:port`, `10.1.0.0/16`.

    `params` are added to the query of the URL. The body is `json` or, as it is, `body`. POST and PATCH carry an
    `Idempotency-Key`, the same in every attempt at the task, unless `headers` have one. At most `follow` redirects are
    followed (0: a redirect is the answer); headers of yours do not go along to another host.

    `AddressRefusedError` for what must not be reached; `RequestError` if there is no answer; `TooLargeError` if it has
    more than `max_bytes`, unpacked; `UnexpectedStatusError` if its status is not among those in `expect`;
    `TimeoutError` if it is not complete after `timeout_s`.
    """
    if json is not None and body is not None:
        raise ArgumentError("http.request", "both json and body are given", "Give one of them.")
    if context is not None and method in ("POST", "PATCH"):
        headers = {"Idempotency-Key": context.idempotency_key, **headers}
    begun = time.monotonic()
    asked = prepared("http.request", url, method, headers=headers, params=params, json=json, body=body)
    fetched = await fetch(asked, timeout_s=timeout_s, max_bytes=max_bytes, follow=follow, expect=expect)
    answer: Answer = {
        "status": fetched.status,
        "url": str(fetched.url),
        "headers": dict(fetched.headers),
        "elapsed_s": round(time.monotonic() - begun, 3),
    }
    _put_body(answer, fetched)
    return answer


def prepared(
    tool_name: str,
    url: str,
    method: str,
    *,
    headers: dict[str, str],
    params: dict[str, Scalar | list[Scalar]],
    json: Any = None,
    body: str | None = None,
) -> httpx2.Request:
    """The request. `ArgumentError` if there can be no such."""
    framing = [name for name in headers if name.lower() in _FRAMING]
    if framing:
        raise ArgumentError(tool_name, f'the header "{framing[0]}" follows from the request', "Leave it out.")
    try:
        merged = httpx2.Headers({"User-Agent": "comagent", "Accept": "*/*", "Accept-Encoding": "gzip, deflate"})
        merged.update(headers)
        return httpx2.Request(
            method,
            httpx2.URL(url).copy_merge_params(params) if params else httpx2.URL(url),
            headers=merged,
            json=json,
            content=body,
        )
    except (httpx2.InvalidURL, TypeError, ValueError) as error:
        raise ArgumentError(tool_name, f"there can be no such request: {error}", "Correct the arguments.") from None


def _put_body(answer: Answer, fetched: Fetched) -> None:
    if _JSON.fullmatch(fetched.media_type):
        try:
            answer["json"] = from_json(fetched.content.removeprefix(codecs.BOM_UTF8), allow_inf_nan=False)
        except ValueError:
            pass  # it is something else than it says
        else:
            return
    text = _text(fetched)
    if text is None:
        answer["base64"] = base64.b64encode(fetched.content).decode()
    else:
        answer["text"] = text


def _text(fetched: Fetched) -> str | None:
    """The body as text; None if it is none."""
    charset = _charset(fetched.charset)
    if charset or _TEXT.fullmatch(fetched.media_type) or _JSON.fullmatch(fetched.media_type):
        return fetched.content.decode(charset or "utf-8-sig", "replace")
    try:
        text = fetched.content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _charset(name: str | None) -> str | None:
    """The codec of a character set; None if there is no such."""
    try:
        codec = codecs.lookup(name or "").name
        b"a".decode(codec, "replace")
    except (LookupError, ValueError):
        return None
    return None if codec.replace("-", "_") in _NO_CHARSETS else codec
