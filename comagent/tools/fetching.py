"""HTTP requests to machines that may be reached, with a limit to time, size and redirects.

A name is looked up once for each connection, every address of it is checked, and the connection goes to the address
that was checked: what the name stands for a moment later does not matter. Redirects are requests like any other.
The proxies that the environment names are not used, for behind them nothing could be checked.
"""

import asyncio
import functools
import os
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import NamedTuple

import httpcore2
import httpx2

from comagent.errors import ComAgentError
from comagent.tools.addresses import AddressRefusedError, Allowed, addresses, allowed
from comagent.tools.sizes import TooLargeError

__all__ = ["Fetched", "RequestError", "TooManyRedirectsError", "UnexpectedStatusError", "fetch", "shown"]

_CONNECT_S = 10.0
"""How long to try one address before the next."""
_TRAVELLING = frozenset(
    ("accept", "accept-encoding", "accept-language", "content-length", "content-type", "cookie", "host", "user-agent")
)
"""Headers that go along to another machine; cookies are those that it has set itself. What else a process has given
may be a secret that is meant for the first."""
_FAILURES = (
    *(httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError),
    *(httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, httpcore2.UnsupportedProtocol),
)


class Fetched(NamedTuple):
    """An answer, all of it."""

    status: int
    url: httpx2.URL
    """Of the answer, after redirects."""
    headers: httpx2.Headers
    content: bytes
    charset: str | None
    """What the answer says of itself."""

    @property
    def media_type(self) -> str:
        """Such as `text/html`; empty if the answer does not say."""
        return str(self.headers.get("content-type", "")).partition(";")[0].strip().lower()


class RequestError(ComAgentError):
    """A request could not be made, or was not answered in HTTP."""

    def __init__(self, request: str, problem: str) -> None:
        super().__init__(request, problem)
        self.request = request
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.request}: {self.problem}"


class TooManyRedirectsError(RequestError):
    """A request was sent on more often than it may be."""


class UnexpectedStatusError(ComAgentError):
    """A request was answered with a status that was not expected."""

    def __init__(self, url: str, status: int, said: str) -> None:
        super().__init__(url, status, said)
        self.url = url
        self.status = status
        self.said = said

    def __str__(self) -> str:
        return f"{self.url} answered with status {self.status}" + (f": {self.said}" if self.said else "")


async def fetch(
    request: httpx2.Request, *, timeout_s: float, max_bytes: int, follow: int, expect: list[int] | None
) -> Fetched:
    """The answer to a request, of at most `max_bytes` when unpacked.

    With `follow` 0 a redirect is an answer like any other. Raises `AddressRefusedError`, `RequestError`,
    `TooManyRedirectsError`, `TooLargeError`, `UnexpectedStatusError`, or `TimeoutError` for the whole.
    """
    name = f"{request.method} {shown(request.url)}"
    try:
        async with asyncio.timeout(timeout_s):
            fetched = await _follow(request, max_bytes=max_bytes, follow=follow)
    except TimeoutError:
        raise TimeoutError(f"{name}: no complete answer within {timeout_s:g} s") from None
    except _FAILURES as error:
        raise RequestError(name, str(error) or type(error).__name__) from error
    if expect is not None and fetched.status not in expect:
        said = fetched.content[:500].decode("utf-8", "replace").strip()
        raise UnexpectedStatusError(shown(fetched.url), fetched.status, said)
    return fetched


def shown(url: httpx2.URL) -> str:
    """A URL as it is shown in messages: without its query, which may hold a key."""
    return str(url.copy_with(query=None, fragment=None, userinfo=b""))


async def _follow(request: httpx2.Request, *, max_bytes: int, follow: int) -> Fetched:
    transport = _Transport(allowed(), max_bytes)
    async with httpx2.AsyncClient(transport=transport, timeout=None, trust_env=False) as client:
        for left in range(follow, -1, -1):
            _check(request.url)
            answer = await client.send(request, stream=True)
            try:
                if follow == 0 or not answer.has_redirect_location:
                    content = await _content(answer, max_bytes)
                    return Fetched(answer.status_code, answer.url, answer.headers, content, answer.charset_encoding)
                if left:
                    request = _redirected(answer)
            finally:
                await answer.aclose()
    raise TooManyRedirectsError(f"{request.method} {shown(request.url)}", f"it was redirected more than {follow} times")


def _check(url: httpx2.URL) -> None:
    if url.scheme not in ("http", "https"):
        raise AddressRefusedError(
            f'"{url.scheme}:"', "is no scheme that is allowed", "Write a URL that begins with http:// or https://."
        )
    if url.userinfo:
        raise AddressRefusedError(
            shown(url), "has a user or a password before its host", "Give them in a header, such as Authorization."
        )
    if not url.host:
        raise AddressRefusedError(f'"{shown(url)}"', "has no host", "Write a whole URL, such as https://host/path.")


def _redirected(answer: httpx2.Response) -> httpx2.Request:
    request = answer.next_request
    if request is None:
        raise RequestError(
            f"{answer.request.method} {shown(answer.url)}", "it is redirected to something that is no URL"
        )
    if _origin(request.url) != _origin(answer.url):
        for header in [header for header in request.headers if header not in _TRAVELLING]:
            del request.headers[header]
    return request


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return (url.scheme, url.host, url.port)


async def _content(answer: httpx2.Response, max_bytes: int) -> bytes:
    content = bytearray()
    async for part in answer.aiter_bytes():
        content += part
        if len(content) > max_bytes:
            raise TooLargeError(f"the answer of {shown(answer.url)}", max_bytes)
    return bytes(content)


class _Transport(httpx2.AsyncBaseTransport):
    """Connections for one request and its redirects."""

    def __init__(self, allow: Allowed, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=_tls(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")),
            network_backend=_Checked(allow),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        assert isinstance(request.stream, AsyncIterable)
        answer = await self._pool.handle_async_request(
            httpcore2.Request(
                method=request.method,
                url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        body = _Body(answer, TooLargeError(f"the answer of {shown(url)}", self._max_bytes))
        return httpx2.Response(answer.status, headers=answer.headers, stream=body, extensions=answer.extensions)

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Body(httpx2.AsyncByteStream):
    """What comes over the wire. It is measured too: it may be of any length, and unpack to nothing."""

    def __init__(self, answer: httpcore2.Response, too_large: TooLargeError) -> None:
        self._answer = answer
        self._too_large = too_large

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for part in self._answer.aiter_stream():
            size += len(part)
            if size > self._too_large.limit:
                raise self._too_large
            yield part

    async def aclose(self) -> None:
        await self._answer.aclose()


class _Checked(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that were checked, and to nothing else. TLS still asks for the name."""

    def __init__(self, allow: Allowed) -> None:
        self._allow = allow
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # the base class has it; `fetch` sets a time for the whole
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            found = await addresses(host, port, self._allow)
        except OSError as error:
            raise httpcore2.ConnectError(f"{host} cannot be looked up: {error.strerror or error}") from error
        problem: Exception = httpcore2.ConnectError(f"{host} has no address")
        for address in found:
            try:
                return await self._network.connect_tcp(
                    address, port, timeout=_CONNECT_S, local_address=local_address, socket_options=socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                problem = error
        raise httpcore2.ConnectError(f"{host}:{port} does not answer ({str(problem) or 'timeout'})") from problem


@functools.cache
def _tls(file: str | None, folder: str | None) -> ssl.SSLContext:
    """The certificates that are trusted. Reading them takes too long to do so for every request."""
    return httpx2.create_ssl_context()
