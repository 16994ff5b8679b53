"""`http.request` and `http.scrape`, against servers on this machine: what they give, and what they refuse to reach."""

import asyncio
import base64
import gzip
import json
import pickle
import shutil
import socket
import ssl
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpcore2
import jsonschema
import pytest

from comagent.errors import ArgumentError, InputError
from comagent.tools import ToolContext
from comagent.tools.addresses import AddressRefusedError, Allowed, addresses, allowed
from comagent.tools.fetching import RequestError, TooManyRedirectsError, UnexpectedStatusError
from comagent.tools.loading import load
from comagent.tools.registry import resolve
from comagent.tools.scraping import NotHtmlError
from comagent.tools.sizes import TooLargeError

PAGE = """<!doctype html><html><head><title> A
 page </title><base href="/base/"><style>p {}</style></head><body>
<!-- unseen --><h1>Grüße</h1><p>one <b>two</b>,
three<br>four</p><script>alert(1)</script>
<ul><li class="x" data-n="1">first<li class="x" data-n="2">second <a href="#top">top</a></ul>
<table><tr><td>a<td>b</table>
<a href="rel?q=1&amp;r=2">rel</a> <a href="rel?q=1&amp;r=2">again</a> <a href="//other/x">other</a>
<a href="javascript:alert(1)">no</a><a href="mailto:x@y">no</a>
<a href="http://[">no</a> <a>no</a>
</body></html>"""


class Server:
    """A server on a port of its own. It counts connections and keeps what it was asked."""

    def __init__(self, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self.connections = 0
        self.asked: list[dict[str, Any]] = []
        self.page = b""
        outer = self

        class Listener(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
            daemon_threads = False

            def get_request(self) -> tuple[socket.socket, Any]:
                connection, peer = super().get_request()
                outer.connections += 1
                return (tls.wrap_socket(connection, server_side=True), peer) if tls else (connection, peer)

            def handle_error(self, *_: Any) -> None:
                """A client that went away is what is tested."""

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10

            def answer(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                outer.asked.append(
                    {
                        "method": self.command,
                        "path": self.path,
                        "headers": {name.lower(): value for name, value in self.headers.items()},
                        "body": self.rfile.read(length).decode(),
                    }
                )
                parts = urlsplit(self.path)
                getattr(outer, f"_{parts.path.strip('/') or 'echo'}")(self, parse_qs(parts.query))

            def __getattr__(self, name: str) -> Any:
                if name.startswith("do_"):
                    return self.answer
                raise AttributeError(name)

            def log_message(self, *_: Any) -> None:
                """Tests look at `asked`."""

        self._listener = Listener((address, 0), Handler)
        self.port: int = self._listener.server_address[1]
        self.host = f"[{address}]" if ":" in address else address
        self.netloc = f"{self.host}:{self.port}"
        self.url = f"{'https' if tls else 'http'}://{self.netloc}"
        self._thread = threading.Thread(target=self._listener.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown()
        self._thread.join()
        self._listener.server_close()

    def _echo(self, handler: BaseHTTPRequestHandler, query: dict[str, list[str]]) -> None:
        self._send(handler, json.dumps(self.asked[-1]).encode(), "application/json")

    def _body(self, handler: BaseHTTPRequestHandler, query: dict[str, list[str]]) -> None:
        body = base64.b64decode(query.get("base64", [""])[0])
        headers = {"Content-Encoding": query["encoding"][0]} if "encoding" in query else {}
        self._send(handler, body, query.get("type", [""])[0], int(query.get("status", ["200"])[0]), headers)

    def _redirect(self, handler: BaseHTTPRequestHandler, query: dict[str, list[str]]) -> None:
        self._send(
            handler, b"elsewhere", "text/plain", int(query.get("status", ["302"])[0]), {"Location": query["to"][0]}
        )

    def _loop(self, handler: BaseHTTPRequestHandler, query: dict[str, list[str]]) -> None:
        self._redirect(handler, {"to": ["/loop"]})

    def _endless(self, handler: BaseHTTPRequestHandler, query: dict[str, list[str]]) -> None:
        handler.send_response(200)
        kind = query.get("kind", ["plain"])[0]
        if kind != "plain":
            handler.send_header("Content-Encoding", "deflate")
        handler.send_header("Connection", "close")
        handler.end_headers()
        packer = zlib.compressobj()
        handler.wfile.write(packer.compress(b"") if kind == "empty" else b"")
        for _ in range(10_000):
            if kind == "plain":
                part = b"x" * 10_000
            elif kind == "bomb":
                part = packer.compress(bytes(1_000_000)) + packer.flush(zlib.Z_SYNC_FLUSH)
            else:
                part = b"\x00\x00\x00\xff\xff" * 2_000  # blocks without content
            handler.wfile.write(part)

    def _page(self, handler: BaseHTTPRequestHandler, query: dict[str, list[str]]) -> None:
        self._send(handler, self.page, "text/html")

    def _silent(self, handler: BaseHTTPRequestHandler, query: dict[str, list[str]]) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "10")
        handler.end_headers()
        handler.wfile.flush()
        handler.rfile.read(1)  # until the client gives up

    def _nonsense(self, handler: BaseHTTPRequestHandler, query: dict[str, list[str]]) -> None:
        handler.wfile.write(b"SSH-2.0-OpenSSH\r\n\r\n")
        handler.close_connection = True

    def _send(
        self,
        handler: BaseHTTPRequestHandler,
        body: bytes,
        type: str,
        status: int = 200,
        headers: dict[str, str] | None = None,
    ) -> None:
        handler.send_response(status)
        if type:
            handler.send_header("Content-Type", type)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Set-Cookie", "a=1")
        handler.send_header("Set-Cookie", "b=2")
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*arguments: Any, **options: Any) -> Server:
        servers.append(Server(*arguments, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def server(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> Server:
    """The one server that may be reached."""
    started = serve()
    monkeypatch.setenv("COMAGENT_HTTP_ALLOW", started.netloc)
    return started


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No test leaves this machine: connections to elsewhere fail, and are kept here."""
    reached: list[str] = []
    connect = httpcore2.AnyIOBackend.connect_tcp

    async def connect_here(backend: Any, host: str, port: int, **options: Any) -> Any:
        reached.append(host)
        if not host.startswith("127.") and host != "::1":
            raise httpcore2.ConnectError("no traffic in tests")
        return await connect(backend, host, port, **options)

    monkeypatch.setattr(httpcore2.AnyIOBackend, "connect_tcp", connect_here)
    for name in ("COMAGENT_HTTP_ALLOW", "SSL_CERT_DIR", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    return reached


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """Names and what they stand for at each look-up; the last answer stays."""
    known: dict[str, list[list[str]]] = {}
    look_up = socket.getaddrinfo

    def answer(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host not in known:
            assert host.replace(".", "").replace(":", "").isalnum(), "only this machine's own names"
            return look_up(host, port, *arguments, **options)
        found = known[host].pop(0) if len(known[host]) > 1 else known[host][0]
        families = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in found]
        return [
            (family, socket.SOCK_STREAM, 6, "", (address, port))
            for family, address in zip(families, found, strict=True)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return known


async def call(name: str, url: str, **arguments: Any) -> Any:
    context = ToolContext("job", "task", 1, (1, 1), "job/task")
    return await load(resolve(name).code).call({"url": url, **arguments}, context)


async def request(url: str, **arguments: Any) -> Any:
    return await call("http.request", url, **arguments)


async def scrape(url: str, **arguments: Any) -> Any:
    return await call("http.scrape", url, **arguments)


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Key and certificate of `service.test`."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    files = ("-keyout", str(key), "-out", str(certificate))
    algorithm = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    subject = ("-subj", "/CN=test", "-addext", "subjectAltName=DNS:service.test")
    subprocess.run(("openssl", "req", "-x509", *algorithm, *files, *subject), check=True, capture_output=True)
    return key, certificate


def body(server: Server, content: bytes, type: str = "", **query: Any) -> str:
    return f"{server.url}/body?{urlencode({'base64': base64.b64encode(content), 'type': type, **query})}"


async def test_a_request_is_sent_as_it_was_described(server: Server) -> None:
    answer = await request(
        f"{server.url}/echo?a=1",
        method="PUT",
        params={"b": [2, True], "c": "ü &"},
        headers={"X-Mine": "x"},
        json={"k": [1]},
    )
    schema = resolve("http.request").returns
    assert schema is not None
    jsonschema.validate(answer, schema)
    seen = answer["json"]
    assert (answer["status"], seen["method"], json.loads(seen["body"])) == (200, "PUT", {"k": [1]})
    assert parse_qs(urlsplit(seen["path"]).query) == {"a": ["1"], "b": ["2", "true"], "c": ["ü &"]}
    assert seen["headers"] == {
        "accept": "*/*",
        "accept-encoding": "gzip, deflate",
        "content-length": seen["headers"]["content-length"],
        "content-type": "application/json",
        "host": server.netloc,
        "user-agent": "comagent",
        "x-mine": "x",
    }
    assert answer["url"] == f"{server.url}{seen['path']}"
    assert answer["headers"]["set-cookie"] == "a=1, b=2"


async def test_text_can_be_sent_and_headers_replaced(server: Server) -> None:
    headers = {"content-type": "text/csv", "user-agent": "mine"}
    seen = (await request(server.url, method="POST", body="ä,b", headers=headers))["json"]
    assert seen["body"] == "ä,b"
    assert (seen["headers"]["content-type"], seen["headers"]["user-agent"]) == ("text/csv", "mine")


async def test_what_is_not_repeatable_carries_the_key_of_its_task(server: Server) -> None:
    keys = {}
    for method in ("GET", "POST", "PATCH", "PUT", "DELETE"):
        keys[method] = (await request(server.url, method=method))["json"]["headers"].get("idempotency-key")
    assert keys == {"GET": None, "POST": "job/task", "PATCH": "job/task", "PUT": None, "DELETE": None}
    given = await request(server.url, method="POST", headers={"idempotency-key": "mine"})
    assert given["json"]["headers"]["idempotency-key"] == "mine"


@pytest.mark.parametrize(
    ("content", "type", "expected"),
    [
        (b'{"a": [1, 2.5, null]}', "application/json; charset=utf-8", {"json": {"a": [1, 2.5, None]}}),
        (b"\xef\xbb\xbf[]", "application/problem+json", {"json": []}),
        (b"null", "application/json", {"json": None}),
        (b"{", "application/json", {"text": "{"}),
        (b"[NaN]", "application/json", {"text": "[NaN]"}),
        (b"[" * 9999, "application/json", {"text": "[" * 9999}),
        (b'"\\ud800"', "application/json", {"text": '"\\ud800"'}),
        ("Grüße".encode(), "text/plain", {"text": "Grüße"}),
        ("Grüße".encode("cp1252"), "text/plain; charset=windows-1252", {"text": "Grüße"}),
        (b"x\xff", "text/plain", {"text": "x\ufffd"}),
        (b"x\xff", "text/plain; charset=no-such", {"text": "x\ufffd"}),
        (b"\\x41", "text/plain; charset=unicode_escape", {"text": "\\x41"}),
        (b"aGk=", "text/plain; charset=base64", {"text": "aGk="}),
        (b"<a/>", "application/atom+xml", {"text": "<a/>"}),
        (b"\x89PNG\xff", "image/png", {"base64": base64.b64encode(b"\x89PNG\xff").decode()}),
        (b"a\0b", "", {"base64": base64.b64encode(b"a\0b").decode()}),
        (b"plain", "", {"text": "plain"}),
        (b"", "", {"text": ""}),
    ],
)
async def test_a_body_is_json_or_text_or_bytes(server: Server, content: bytes, type: str, expected: Any) -> None:
    answer = await request(body(server, content, type))
    assert {name: answer[name] for name in ("json", "text", "base64") if name in answer} == expected


async def test_a_status_is_an_error_only_if_it_is_not_expected(server: Server) -> None:
    url = body(server, b"no such thing", "text/plain", status=404)
    assert (await request(url))["status"] == 404
    assert (await request(url, expect=[200, 404]))["status"] == 404
    with pytest.raises(UnexpectedStatusError, match="/body answered with status 404: no such thing"):
        await request(url, expect=[200])


async def test_redirects_are_followed_as_often_as_is_allowed(server: Server) -> None:
    answer = await request(f"{server.url}/redirect?to=/echo", method="POST", body="x")
    assert (answer["url"], answer["json"]["method"], answer["json"]["body"]) == (f"{server.url}/echo", "GET", "")
    answer = await request(f"{server.url}/redirect?to=/echo&status=307", method="POST", body="x")
    assert (answer["json"]["method"], answer["json"]["body"]) == ("POST", "x")
    answer = await request(f"{server.url}/redirect?to=/echo", follow=0)
    assert (answer["status"], answer["headers"]["location"], answer["text"]) == (302, "/echo", "elsewhere")
    server.asked.clear()
    with pytest.raises(TooManyRedirectsError, match="it was redirected more than 3 times"):
        await request(f"{server.url}/loop", follow=3)
    assert len(server.asked) == 4
    with pytest.raises(RequestError, match="redirected to something that is no URL"):
        await request(f"{server.url}/redirect?to=http://host:port/")


async def test_headers_of_a_process_do_not_go_to_another_host(
    server: Server, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = serve()
    monkeypatch.setenv("COMAGENT_HTTP_ALLOW", "127.0.0.1")
    secrets = {"X-Api-Key": "s", "Authorization": "s", "Cookie": "s=s", "Accept-Language": "de"}
    answer = await request(f"{server.url}/redirect?to={server.url}/echo", headers=secrets)
    assert (answer["json"]["headers"]["x-api-key"], answer["json"]["headers"]["authorization"]) == ("s", "s")
    answer = await request(f"{server.url}/redirect?to={other.url}/echo", headers=secrets)
    assert answer["json"]["headers"]["accept-language"] == "de"
    assert answer["json"]["headers"]["host"] == other.netloc
    assert {"x-api-key", "authorization"} & answer["json"]["headers"].keys() == set()
    assert "s=s" not in answer["json"]["headers"].get("cookie", "")


@pytest.mark.parametrize("kind", ["plain", "bomb", "empty"])
async def test_an_endless_answer_is_given_up_when_it_is_too_large(server: Server, kind: str) -> None:
    with pytest.raises(TooLargeError, match="/endless is larger than 100,000 bytes"):
        await request(f"{server.url}/endless?kind={kind}", max_bytes=100_000)


async def test_packed_answers_are_unpacked_and_measured_so(server: Server) -> None:
    url = body(server, gzip.compress(b"x" * 5_000), "text/plain", encoding="gzip")
    assert (await request(url, max_bytes=5_000))["text"] == "x" * 5_000
    with pytest.raises(TooLargeError):
        await request(url, max_bytes=4_999)
    with pytest.raises(RequestError, match="incorrect header check"):
        await request(body(server, b"not packed", "text/plain", encoding="gzip"))


async def test_an_answer_that_does_not_end_is_given_up(server: Server) -> None:
    with pytest.raises(TimeoutError, match=r"GET .*/silent: no complete answer within 0\.2 s"):
        await request(f"{server.url}/silent?key=secret", timeout_s=0.2)


async def test_what_is_no_http_is_told_so(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match=r"GET http://127.*/nonsense: "):
        await request(f"{server.url}/nonsense")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("COMAGENT_HTTP_ALLOW", "127.0.0.1")
    with pytest.raises(RequestError, match=f"127.0.0.1:{port} does not answer"):
        await request(f"http://127.0.0.1:{port}/?key=secret")
    with pytest.raises(RequestError, match=r"a\.\.b cannot be looked up"):
        await request("http://a..b/")


@pytest.mark.parametrize(
    "arguments",
    [
        {"json": 1, "body": "x"},
        {"headers": {"Host": "other"}},
        {"headers": {"transfer-encoding": "chunked"}},
        {"headers": {"X": "ü\udcff"}},
        {"method": "CONNECT"},
        {"url": "http://[::1"},
        {"timeout_s": 0},
        {"max_bytes": 0},
        {"params": {"a": {}}},
    ],
)
async def test_a_request_that_cannot_be_is_refused_before_it_is_sent(server: Server, arguments: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=r"http\.request"):
        await request(**{"url": server.url, **arguments})
    assert server.connections == 0


@pytest.mark.parametrize("headers", [{"X": "a\r\nY: b"}, {"X y": "a"}, {"X": "a\0"}])
async def test_headers_cannot_be_smuggled(server: Server, headers: dict[str, str]) -> None:
    with pytest.raises((RequestError, ArgumentError)):
        await request(server.url, headers=headers)
    assert server.asked == []


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.8.8.8",
        "localhost",
        "LOCALHOST.",
        "0.0.0.0",
        "127.0.0.1.",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "127.1",
        "127.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "169.254.169.254",
        "[::ffff:169.254.169.254]",
        "168.63.129.16",
        "192.0.0.192",
        "192.0.2.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "[fe80::1]",
        "[fe80::1%25lo]",
        "[fec0::1]",
        "[fd00:ec2::254]",
        "[ff02::1]",
        "[2001:db8::1]",
    ],
)
async def test_addresses_that_are_not_public_are_refused(
    host: str, serve: Callable[..., Server], nothing_else: list[str]
) -> None:
    server = serve()
    with pytest.raises(AddressRefusedError):
        await request(f"http://{host}:{server.port}/")
    with pytest.raises(AddressRefusedError):
        await scrape(f"https://{host}:{server.port}/")
    assert (server.connections, nothing_else) == (0, [])


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://user@{}/", "has a user or a password before its host"),
        ("http://public.example:80@{}/", "has a user or a password before its host"),
        ("http://public.example\\@{}/", "has a user or a password before its host"),
        ("ftp://{}/", '"ftp:" is no scheme that is allowed'),
        ("file:///etc/passwd", '"file:" is no scheme that is allowed'),
        ("{}/", "is no scheme that is allowed|no such request"),
        ("http:///path", "has no host"),
    ],
)
async def test_urls_of_other_forms_are_refused_even_for_what_is_allowed(server: Server, url: str, problem: str) -> None:
    with pytest.raises((AddressRefusedError, ArgumentError), match=problem):
        await request(url.format(server.netloc))
    with pytest.raises((AddressRefusedError, RequestError, UnexpectedStatusError)):
        await request(f"{server.url}/redirect", params={"to": url.format(server.netloc)}, expect=[599])
    assert [asked["path"].partition("?")[0] for asked in server.asked if asked["path"] == "/"] == []


@pytest.mark.parametrize(
    "to",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://localhost:{other}/",
        "//127.0.0.1:{other}/",
        "http://[::1]:{other}/",
    ],
)
async def test_a_redirect_is_checked_like_the_first_request(
    to: str, server: Server, serve: Callable[..., Server], nothing_else: list[str]
) -> None:
    other = serve()
    with pytest.raises(AddressRefusedError):
        await request(f"{server.url}/redirect", params={"to": to.format(other=other.port)})
    assert (server.connections, other.connections) == (1, 0)
    assert set(nothing_else) == {"127.0.0.1"}


async def test_a_name_that_changes_its_address_after_the_check_leads_nowhere_else(
    serve: Callable[..., Server], names: dict[str, list[list[str]]], nothing_else: list[str]
) -> None:
    trap = serve()
    names["rebind.test"] = [["93.184.215.14"], ["127.0.0.1"]]
    with pytest.raises(RequestError, match=r"rebind\.test:\d+ does not answer \(no traffic in tests\)"):
        await request(f"http://rebind.test:{trap.port}/")
    assert nothing_else == ["93.184.215.14"], "the address that was checked, and no name"
    assert (trap.connections, names["rebind.test"]) == (0, [["127.0.0.1"]]), "looked up once"
    with pytest.raises(AddressRefusedError, match=r"has the address 127\.0\.0\.1, which is an address of this machine"):
        await request(f"http://rebind.test:{trap.port}/")
    assert trap.connections == 0


async def test_a_name_that_changes_its_address_between_redirects_is_checked_again(
    serve: Callable[..., Server], names: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, trap = serve(), serve()
    monkeypatch.setenv("COMAGENT_HTTP_ALLOW", f"127.0.0.1:{first.port}")
    names["rebind.test"] = [["127.0.0.1"]]
    with pytest.raises(AddressRefusedError):
        await request(f"http://rebind.test:{first.port}/redirect?to=http://rebind.test:{trap.port}/")
    assert (first.connections, trap.connections) == (1, 0)


async def test_the_connection_goes_to_the_address_and_the_request_names_the_host(
    server: Server, names: dict[str, list[list[str]]]
) -> None:
    names["service.test"] = [["127.0.0.1"], ["10.0.0.1"]]
    answer = await request(f"http://service.test:{server.port}/")
    assert answer["json"]["headers"]["host"] == f"service.test:{server.port}"
    assert names["service.test"] == [["10.0.0.1"]]


@pytest.mark.parametrize("inner", ["127.0.0.1", "::1", "::ffff:10.0.0.1", "169.254.169.254"])
async def test_one_address_that_is_refused_refuses_the_name(
    inner: str, names: dict[str, list[list[str]]], nothing_else: list[str]
) -> None:
    names["mixed.test"] = [["93.184.215.14", inner]]
    with pytest.raises(AddressRefusedError, match=r"mixed\.test:80 has the address"):
        await request("http://mixed.test/")
    assert nothing_else == []


async def test_the_next_address_is_tried_when_one_does_not_answer(
    server: Server, names: dict[str, list[list[str]]], nothing_else: list[str]
) -> None:
    names["two.test"] = [["93.184.215.14", "127.0.0.1"]]
    assert (await request(f"http://two.test:{server.port}/"))["status"] == 200
    assert nothing_else == ["93.184.215.14", "127.0.0.1"]


async def test_proxies_of_the_environment_are_not_used(
    server: Server, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serve()
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, proxy.url)
    assert (await request(server.url))["status"] == 200
    assert proxy.connections == 0


async def test_tls_asks_for_the_name_and_believes_nothing_else(
    serve: Callable[..., Server],
    names: dict[str, list[list[str]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("makes a certificate with openssl")
    key, certificate = make_certificate(tmp_path)
    asked: list[str | None] = []
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    tls.sni_callback = lambda _socket, name, _context: asked.append(name)
    server = serve(tls=tls)
    names["service.test"] = names["other.test"] = [["127.0.0.1"]]
    monkeypatch.setenv("COMAGENT_HTTP_ALLOW", "127.0.0.1")
    with pytest.raises(RequestError, match="CERTIFICATE_VERIFY_FAILED"):
        await request(f"https://service.test:{server.port}/")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert (await request(f"https://service.test:{server.port}/"))["json"]["headers"]["host"].startswith("service.test")
    with pytest.raises(RequestError, match="CERTIFICATE_VERIFY_FAILED"):
        await request(f"https://other.test:{server.port}/")
    assert asked == ["service.test", "service.test", "other.test"]


async def test_what_is_allowed_is_a_host_a_port_an_address_or_a_network(
    names: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    names.update({"service.test": [["10.1.2.3"]], "v6.test": [["fd00::5"]]})
    cases = {
        "service.test": [("service.test", 80), ("SERVICE.test.", 81)],
        "service.test:80": [("service.test", 80)],
        "10.1.0.0/16": [("service.test", 80), ("10.1.2.3", 81), ("::ffff:10.1.2.3", 1)],
        "10.1.2.3:80, v6.test": [("service.test", 80), ("v6.test", 5)],
        "[fd00::5]:8080, [fd00::6]": [("v6.test", 8080), ("fd00::6", 1)],
        "fd00::/8,169.254.169.254": [("v6.test", 1), ("169.254.169.254", 80)],
        "10.1.0.0/16:443": [("service.test", 443)],
    }
    asked = sorted({pair for pairs in cases.values() for pair in pairs})
    for entry, pairs in cases.items():
        monkeypatch.setenv("COMAGENT_HTTP_ALLOW", entry)
        rules = allowed()
        passed = set()
        for pair in asked:
            try:
                await addresses(*pair, rules)
            except AddressRefusedError:
                continue
            passed.add(pair)
        assert passed >= set(pairs), entry
        if ":" in entry and "/" not in entry and "," not in entry:
            assert passed == set(pairs), entry
    assert allowed() != Allowed()


@pytest.mark.parametrize(
    "entry", ["10.1.0.1/16", "http://x", "x:y", "x:123456", "*", "a b", "127.1", "[x]:1", "10.0.0.0/x"]
)
def test_a_setting_that_cannot_be_read_is_told_so(entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMAGENT_HTTP_ALLOW", f"localhost, {entry}")
    with pytest.raises(InputError, match="COMAGENT_HTTP_ALLOW: "):
        allowed()


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "2606:2800:220:1::1", "64:ff9b::5db8:d70e", "::ffff:93.184.215.14"]
)
async def test_public_addresses_are_allowed(address: str) -> None:
    assert await addresses(address, 443, Allowed()) == [address.removeprefix("::ffff:")]


async def test_a_page_is_read_as_people_see_it(server: Server) -> None:
    page = await scrape(body(server, PAGE.encode(), "text/html"))
    schema = resolve("http.scrape").returns
    assert schema is not None
    jsonschema.validate(page, schema)
    assert (page["title"], page["status"], page["matches"]) == ("A page", 200, [])
    assert page["text"].splitlines() == [
        "Grüße", "one two, three", "four", "first", "second top", "a b", "rel again other nono no no"
    ]  # fmt: skip
    assert page["links"] == [
        {"url": f"{server.url}/base/#top", "text": "top"},
        {"url": f"{server.url}/base/rel?q=1&r=2", "text": "rel"},
        {"url": "http://other/x", "text": "other"},
    ]


async def test_a_selector_chooses_elements(server: Server) -> None:
    url = body(server, PAGE.encode(), "text/html")
    page = await scrape(url, selector="ul > li.x")
    assert page["matches"] == [
        {"text": "first", "attributes": {"class": "x", "data-n": "1"}},
        {"text": "second top", "attributes": {"class": "x", "data-n": "2"}},
    ]
    assert (page["text"], [link["text"] for link in page["links"]]) == ("first\nsecond top", ["top"])
    assert len((await scrape(url, selector="li", limit=1))["matches"]) == 1
    nothing = await scrape(url, selector="video")
    assert (nothing["text"], nothing["links"], nothing["matches"]) == ("", [], [])
    for wrong in ("li[", "li:no-such", "p::before", ""):
        with pytest.raises(ArgumentError, match="is no CSS selector"):
            await scrape(url, selector=wrong)


@pytest.mark.parametrize(
    ("content", "type"),
    [
        ("<p>Grüße €".encode(), "text/html"),
        ("<p>Grüße €".encode("cp1252"), "text/html; charset=windows-1252"),
        ('<meta charset="windows-1252"><p>Grüße €'.encode("cp1252"), "text/html"),
        ("<p>Grüße €".encode("utf-16"), "text/html; charset=utf-16"),
        ("<p>Grüße €".encode(), "text/html; charset=no-such"),
        (
            '<?xml version="1.0" encoding="utf-8"?><html><body><p>Grüße €</p></body></html>'.encode(),
            "application/xhtml+xml",
        ),
    ],
)
async def test_the_characters_of_a_page_are_found_out(server: Server, content: bytes, type: str) -> None:
    assert (await scrape(body(server, content, type)))["text"] == "Grüße €"


async def test_what_is_no_page_is_told_so(server: Server) -> None:
    with pytest.raises(NotHtmlError, match=r"/body is image/png, not HTML\. Use http\.request"):
        await scrape(body(server, b"x", "image/png"))
    with pytest.raises(NotHtmlError, match="is empty, not HTML"):
        await scrape(body(server, b"", "text/html"))
    with pytest.raises(UnexpectedStatusError, match="answered with status 500"):
        await scrape(body(server, b"<p>x", "text/html", status=500))
    assert (await scrape(body(server, b"<p>x", "text/html", status=500), expect=None))["text"] == "x"


@pytest.mark.parametrize(
    "part", ["<div>", "<b>", "<p><b>", "<table><td>", "<a ", "<!--", "<li>x", "</p>", "<![", "&#", "<svg><g>"]
)
async def test_a_hostile_page_takes_no_time(server: Server, part: str) -> None:
    page = b"<body>" + part.encode() * (2**20 // len(part))
    url = f"{server.url}/page"
    server.page = page
    async with asyncio.timeout(60):
        try:
            await scrape(url, selector="i b")
        except NotHtmlError:
            assert part in ("<!--", "<![")


async def test_text_that_is_selected_again_and_again_is_limited(server: Server) -> None:
    content = b"<div>" * 200 + b"x" * 10_000
    with pytest.raises(TooLargeError, match="the text that was selected from"):
        await scrape(body(server, content, "text/html"), selector="div", max_bytes=20_000)


@pytest.mark.parametrize(
    "error",
    [
        AddressRefusedError("h", "is", "Do."),
        RequestError("GET x", "no"),
        TooManyRedirectsError("GET x", "no"),
        UnexpectedStatusError("u", 404, "no"),
        NotHtmlError("u", "image/png"),
    ],
)
def test_errors_survive_pickling(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))
