"""`mail.send` through a real mail server."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from comagent.errors import CannotConnectError
from comagent.isolation import ProcessCall
from comagent.tools import ToolContext
from comagent.tools.mail import MailError, Sent, send
from comagent.tools.registry import resolve

USER, PASSWORD = "reports@example.org", "S3cret:/@"
QUOTED = "reports%40example.org:S3cret%3A%2F%40"


class Mailbox:
    """What a server was given, and what it refuses."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.logins: list[tuple[bytes, bytes]] = []
        self.refuses: set[str] = set()
        self.answer = "250 OK"

    async def handle_RCPT(  # noqa: N802  # aiosmtpd finds it by this name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refuses:
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.answer == "hang up":
            assert server.transport is not None
            server.transport.close()
        elif self.answer.startswith("250"):
            self.envelopes.append(envelope)
        return self.answer

    def authenticate(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == PASSWORD.encode(), handled=False)

    def the_mail(self) -> EmailMessage:
        """The only one."""
        (envelope,) = self.envelopes
        assert isinstance(envelope.content, bytes)
        parsed = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(parsed, EmailMessage)
        return parsed


Serve = Callable[..., Awaitable[int]]


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
async def serve(mailbox: Mailbox) -> AsyncIterator[Serve]:
    """Starts a server on this machine, and returns its port."""
    async with AsyncExitStack() as running:

        async def start(*, tls: ssl.SSLContext | None = None, **options: Any) -> int:
            return await running.enter_async_context(listening(mailbox, tls, options))

        yield start


@asynccontextmanager
async def listening(mailbox: Mailbox, tls: ssl.SSLContext | None, options: dict[str, Any]) -> AsyncIterator[int]:
    def conversation() -> SMTP:
        return SMTP(mailbox, hostname="localhost", authenticator=mailbox.authenticate, **options)

    server = await asyncio.get_running_loop().create_server(conversation, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """What a server needs whose certificate this process finds valid."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    return served_by(authority)


def served_by(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COMAGENT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COMAGENT_MAIL_FROM", f"Reports <{USER}>")
    monkeypatch.delenv("COMAGENT_WORKSPACE", raising=False)
    return tmp_path / "home"


@pytest.fixture
def posted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Awaitable[Sent]]:
    """Sends a mail through the server of this URL."""

    async def post(url: str, **arguments: Any) -> Sent:
        monkeypatch.setenv("COMAGENT_SMTP_URL", url)
        arguments = {"to": "ann@example.org", "subject": "News", "text": "words\n", **arguments}
        return await asyncio.to_thread(send, **arguments)

    return post


Post = Callable[..., Awaitable[Sent]]


async def test_a_mail_is_sent_after_starttls_and_login(
    serve: Serve, tls: ssl.SSLContext, posted: Post, mailbox: Mailbox, home: Path
) -> None:
    port = await serve(tls_context=tls, require_starttls=True, auth_required=True)
    context = ToolContext("job", "report", 1, (1, 1), "job/report")
    arguments = {"cc": "bo@example.org", "bcc": "cy@example.org", "text": ".\nGrüße\n", "context": context}
    sent = await posted(f"smtp://{QUOTED}@localhost:{port}", **arguments)
    assert (sent["via"], sent["where"], sent["refused"]) == ("smtp", f"localhost:{port}", {})
    assert mailbox.logins == [(USER.encode(), PASSWORD.encode())]
    assert mailbox.envelopes[0].mail_from == USER
    assert mailbox.envelopes[0].rcpt_tos == ["ann@example.org", "bo@example.org", "cy@example.org"]
    mail = mailbox.the_mail()
    assert (mail["To"], mail["Cc"], mail["Bcc"], mail["Subject"]) == ("ann@example.org", "bo@example.org", None, "News")
    assert mail["Message-ID"] == sent["message_id"]
    assert mail.get_content().replace("\r\n", "\n") == ".\nGrüße\n"
    assert not await asyncio.to_thread(home.exists)


async def test_a_repeated_attempt_has_the_same_message_id(
    serve: Serve, tls: ssl.SSLContext, posted: Post, mailbox: Mailbox
) -> None:
    url = f"smtp://localhost:{await serve(tls_context=tls)}"
    sent = [
        await posted(url, context=ToolContext("job", "report", attempt, (1, attempt), "job/report"))
        for attempt in (1, 2)
    ]
    assert sent[0] == sent[1]
    assert len(mailbox.envelopes) == 2


async def test_a_server_that_speaks_tls_from_the_start_is_used_as_such(
    serve: Serve, tls: ssl.SSLContext, posted: Post, mailbox: Mailbox
) -> None:
    port = await serve(tls=tls, auth_require_tls=False)
    await posted(f"smtps://{QUOTED}@127.0.0.1:{port}", html="<p>words</p>")
    assert mailbox.the_mail().get_content_type() == "multipart/alternative"
    assert len(mailbox.logins) == 1


async def test_a_server_without_starttls_gets_neither_mail_nor_password(
    serve: Serve, posted: Post, mailbox: Mailbox
) -> None:
    port = await serve(auth_require_tls=False)
    with pytest.raises(CannotConnectError, match="STARTTLS"):
        await posted(f"smtp://{QUOTED}@localhost:{port}")
    assert (mailbox.envelopes, mailbox.logins) == ([], [])


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
async def test_a_server_whose_certificate_is_not_valid_gets_neither_mail_nor_password(
    scheme: str, serve: Serve, tls: ssl.SSLContext, posted: Post, mailbox: Mailbox
) -> None:
    stranger = served_by(trustme.CA())
    port = await (serve(tls_context=stranger) if scheme == "smtp" else serve(tls=stranger, auth_require_tls=False))
    with pytest.raises(CannotConnectError, match="certificate verify failed"):
        await posted(f"{scheme}://{QUOTED}@localhost:{port}")
    assert (mailbox.envelopes, mailbox.logins) == ([], [])


async def test_encryption_can_be_left_out_on_this_machine_only(serve: Serve, posted: Post, mailbox: Mailbox) -> None:
    port = await serve(auth_require_tls=False)
    await posted(f"smtp://127.0.0.1:{port}?tls=none")
    assert mailbox.the_mail()["Subject"] == "News"


async def test_a_wrong_password_is_told_without_it(serve: Serve, tls: ssl.SSLContext, posted: Post) -> None:
    port = await serve(tls_context=tls)
    with pytest.raises(MailError, match="refuses the user or the password in COMAGENT_SMTP_URL: 535") as refused:
        await posted(f"smtp://me:wr0ng@localhost:{port}")
    assert "wr0ng" not in str(refused.value)


async def test_recipients_that_are_refused_are_named_and_the_others_get_the_mail(
    serve: Serve, tls: ssl.SSLContext, posted: Post, mailbox: Mailbox
) -> None:
    url = f"smtp://localhost:{await serve(tls_context=tls)}"
    mailbox.refuses = {"bo@example.org"}
    sent = await posted(url, cc=["bo@example.org"])
    assert sent["refused"] == {"bo@example.org": "550 5.1.1 no such user"}
    assert mailbox.envelopes[0].rcpt_tos == ["ann@example.org"]
    with pytest.raises(MailError, match=r"refuses every recipient: bo@example\.org: 550 5\.1\.1 no such user"):
        await posted(url, to="bo@example.org")


async def test_a_mail_that_is_refused_is_told_with_the_reason(
    serve: Serve, tls: ssl.SSLContext, posted: Post, mailbox: Mailbox
) -> None:
    mailbox.answer = "554 5.7.1 looks like spam"
    with pytest.raises(MailError, match=r"refuses the mail: 554 5\.7\.1 looks like spam"):
        await posted(f"smtp://localhost:{await serve(tls_context=tls)}")


async def test_a_connection_that_is_lost_while_sending_leaves_it_open_whether_the_mail_was_sent(
    serve: Serve, posted: Post, mailbox: Mailbox
) -> None:
    mailbox.answer = "hang up"
    with pytest.raises(MailError, match="the mail may have been sent or not"):
        await posted(f"smtp://localhost:{await serve(auth_require_tls=False)}?tls=none")


async def test_a_server_that_is_not_there_is_told_so(posted: Post, unused_tcp_port: int) -> None:
    with pytest.raises(CannotConnectError, match=f"mail server localhost:{unused_tcp_port}.*COMAGENT_SMTP_URL"):
        await posted(f"smtp://localhost:{unused_tcp_port}")


async def test_it_works_in_a_process_of_its_own(
    serve: Serve, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, mailbox: Mailbox
) -> None:
    monkeypatch.setenv("COMAGENT_SMTP_URL", f"smtp://{QUOTED}@localhost:{await serve(tls_context=tls)}")
    arguments = {"to": "ann@example.org", "subject": "News", "text": "words"}
    context = ToolContext("job", "report", 1, (1, 1), "job/report")
    ended = await ProcessCall(resolve("mail.send").code, arguments, context).ended
    assert ended.data is not None, ended.error
    assert json.loads(ended.data)["message_id"] == mailbox.the_mail()["Message-ID"]
