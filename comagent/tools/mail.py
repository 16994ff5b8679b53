"""A tool that sends mail: through a mail server, or into a folder where none is configured.

`COMAGENT_SMTP_URL` names the server: `smtp://user:password@host:587`, which must offer STARTTLS, or
`smtps://user:password@host:465`. Its certificate must be valid. `smtp://localhost:25?tls=none` does without encryption
on this machine only. `COMAGENT_MAIL_FROM` is the sender of mails that name none.
"""

import contextlib
import hashlib
import ipaddress
import json
import mimetypes
import os
import smtplib
import ssl
import tempfile
import unicodedata
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from email.errors import MessageError
from email.headerregistry import Address, AddressHeader, HeaderRegistry
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from typing_extensions import TypedDict

from comagent.config import Config
from comagent.errors import ArgumentError, CannotConnectError
from comagent.tools.base import ToolContext, tool
from comagent.tools.files import opened

__all__ = ["MailError", "Sent", "send"]

_NAME = "mail.send"
_URL, _FROM = "COMAGENT_SMTP_URL", "COMAGENT_MAIL_FROM"
_FORM = "write it like smtp://user:password@host:587 or smtps://user:password@host:465, with %40 for an @ in a password"
_NOBODY = "comagent@localhost"
"""Sender of mails that only go to the outbox folder."""
_PATIENCE_S = 30.0
_POLICY = SMTP.clone(cte_type="7bit")  # servers without 8BITMIME exist
_BREAKING = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode's categories of characters that break a line, or are none."""
_MOST_ATTACHED = 25 * 2**20


class MailError(Exception):
    """A mail server refuses a mail, or the settings for mail are wrong."""


class Sent(TypedDict):
    message_id: str
    """The same in every attempt at a task."""
    via: Literal["smtp", "outbox"]
    where: str
    """The mail server, or the file in the outbox folder."""
    refused: dict[str, str]
    """Recipients that the server does not accept, and why; the others get the mail."""


# A process of its own can be stopped in the middle of a conversation with a server.
@tool(name=_NAME, kind="process", cost="costly", effects="some")
def send(
    to: str | list[str],
    subject: str,
    *,
    text: str | None = None,
    html: str | None = None,
    cc: str | list[str] = [],  # noqa: B006  # never changed
    bcc: str | list[str] = [],  # noqa: B006  # never changed
    sender: str | None = None,
    attachments: list[str] = [],  # noqa: B006  # never changed
    context: ToolContext | None = None,
) -> Sent:
    """Send a mail of text, HTML or both, with files of the workspace attached.

    Addresses are written `name@host` or `Name <name@host>`. The server is `COMAGENT_SMTP_URL`, such as
    `smtp://user:password@host:587` or `smtps://user:password@host:465`, the sender `COMAGENT_MAIL_FROM` unless one is
    given. Where no server is set, the mail is written to the folder `outbox` in `COMAGENT_HOME`, as an .eml file that
    mail programs open. A mail may be sent again after a crash or a lost connection: it has the same Message-ID then,
    by which many servers and programs drop the second.
    """
    if text is None and html is None:
        raise ArgumentError(_NAME, "there is neither text nor html", "Give one of them, or both.")
    url = os.environ.get(_URL, "")
    server = _server(url) if url else None
    author = _author(sender, is_sent=bool(url))
    message = EmailMessage(policy=_POLICY)
    message["From"] = author
    recipients: dict[str, None] = {}
    for field, given in (("to", to), ("cc", cc), ("bcc", bcc)):
        addresses = [address for one in _listed(given) for address in _addresses(field, one)]
        recipients |= dict.fromkeys(address.addr_spec for address in addresses)
        if addresses:
            message[field.capitalize()] = addresses
    if not recipients:
        raise ArgumentError(_NAME, "there is no recipient", 'Give one in "to", "cc" or "bcc".')
    message["Subject"] = _line("subject", subject)
    message["Date"] = format_datetime(datetime.now(UTC))
    key = uuid.uuid4().hex if context is None else context.idempotency_key
    # With what it says: a task that sends several mails has one key for all of them.
    said = json.dumps([key, str(author), list(recipients), subject, text, html, attachments])
    digest = hashlib.sha256(said.encode()).hexdigest()[:32]
    message["Message-ID"] = message_id = f"<{digest}@{author.domain}>"
    if text is not None:
        message.set_content(text)
    if html is not None:
        (message.set_content if text is None else message.add_alternative)(html, subtype="html")
    _attach(message, attachments)
    if server is None:
        file = _keep(message, f"{digest}.eml")
        return {"message_id": message_id, "via": "outbox", "where": str(file), "refused": {}}
    refused = _deliver(message, server, sender=author.addr_spec, recipients=list(recipients))
    return {"message_id": message_id, "via": "smtp", "where": server.shown, "refused": refused}


def _listed(given: str | list[str]) -> list[str]:
    return [given] if isinstance(given, str) else given


def _author(sender: str | None, *, is_sent: bool) -> Address:
    field, given = ("sender", sender) if sender else (_FROM, os.environ.get(_FROM, ""))
    if not given:
        if is_sent:
            raise ArgumentError(_NAME, "there is no sender", f'Give "sender", or set {_FROM}.')
        given = _NOBODY
    authors = _addresses(field, given)
    if len(authors) != 1:
        raise ArgumentError(_NAME, f'"{field}" names {len(authors)} addresses', "Name one.")
    return authors[0]


def _addresses(field: str, given: str) -> list[Address]:
    """The addresses in `name@host` or `Name <name@host>`, or in several of these with commas between them."""
    problem = f'"{field}" is no address: {given!r}'
    try:
        header = HeaderRegistry()("to", _line(field, given))
        if isinstance(header, AddressHeader) and header.addresses and not header.defects:
            return [_plain(address) for address in header.addresses]
    except (IndexError, UnicodeError, MessageError):  # what the parser raises for some that are none
        pass
    raise ArgumentError(_NAME, problem, "Write `name@host` or `Name <name@host>`; put a name with a comma in quotes.")


def _plain(address: Address) -> Address:
    """The same address, with a host of letters from other alphabets as mail servers know it."""
    return Address(address.display_name, address.username, address.domain.encode("idna").decode())


def _line(field: str, value: str) -> str:
    """The value, if it cannot start a header of its own."""
    if any(unicodedata.category(character) in _BREAKING for character in value):
        raise ArgumentError(_NAME, f'"{field}" has a line break or another control character', "Write it in one line.")
    return value


def _attach(message: EmailMessage, paths: list[str]) -> None:
    left = _MOST_ATTACHED
    for path in paths:
        with opened(path) as file:
            data = file.read(left + 1)
        left -= len(data)
        if left < 0:
            raise MailError(f"the attachments have more than {_MOST_ATTACHED >> 20} MiB: mail a link to them instead")
        name = _line("attachments", path.rsplit("/", 1)[-1])
        kind, encoding = mimetypes.guess_type(name)
        main, _, sub = (kind or "").partition("/")
        if not sub or encoding or main in ("message", "multipart"):
            main, sub = "application", "octet-stream"
        message.add_attachment(data, maintype=main, subtype=sub, filename=name)


def _keep(message: EmailMessage, name: str) -> Path:
    folder = Config().home.absolute() / "outbox"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / name
    if not file.exists():  # else an earlier attempt at the same mail has written it
        descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=".")
        try:
            with os.fdopen(descriptor, "wb") as new:
                new.write(message.as_bytes())
                new.flush()
                os.fsync(descriptor)
            Path(temporary).replace(file)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    return file


class _Server(NamedTuple):
    host: str
    port: int
    user: str
    password: str
    encryption: Literal["at once", "STARTTLS", "none"]

    @property
    def shown(self) -> str:
        return f"{self.host}:{self.port}"


def _server(url: str) -> _Server:
    """What `COMAGENT_SMTP_URL` says. Errors do not show it: it may hold a password."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise MailError(f"{_URL} cannot be read: {_FORM}") from None
    options = parse_qs(parts.query, keep_blank_values=True)
    if parts.scheme not in ("smtp", "smtps") or not host or parts.path.strip("/") or parts.fragment:
        raise MailError(f"{_URL} cannot be read: {_FORM}")
    without_tls = parts.scheme == "smtp" and options == {"tls": ["none"]}
    if options and not without_tls:
        raise MailError(f"{_URL} has an option that is not known: there is only tls=none, for smtp")
    if without_tls and not _is_loopback(host):
        raise MailError(f"{_URL} has tls=none, which is for a server on this machine only: {host} is another")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if not (user + password).isascii():
        raise MailError(f"{_URL} has a user or password that is not ASCII, which Python cannot send to a mail server")
    return _Server(
        host,
        port or (465 if parts.scheme == "smtps" else 587),
        user,
        password,
        "at once" if parts.scheme == "smtps" else "none" if without_tls else "STARTTLS",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _deliver(message: EmailMessage, server: _Server, *, sender: str, recipients: list[str]) -> dict[str, str]:
    """Gives the mail to the server. Returns the recipients that it refuses, and why."""
    with _conversation(server) as smtp:
        try:
            refused = smtp.send_message(message, sender, recipients)  # leaves `Bcc` out
        except smtplib.SMTPRecipientsRefused as error:
            reasons = "; ".join(f"{address}: {_said(*answer)}" for address, answer in error.recipients.items())
            raise MailError(f"{server.shown} refuses every recipient: {reasons}") from None
        except smtplib.SMTPResponseException as error:
            raise MailError(f"{server.shown} refuses the mail: {_said(error.smtp_code, error.smtp_error)}") from None
        except (smtplib.SMTPException, OSError) as error:
            problem = "the connection was lost, and the mail may have been sent or not"
            raise MailError(f"{server.shown}: {problem} ({error})") from None
    return {address: _said(*answer) for address, answer in refused.items()}


@contextlib.contextmanager
def _conversation(server: _Server) -> Iterator[smtplib.SMTP]:
    """A connection to the server, encrypted and logged in."""
    with contextlib.ExitStack() as closing:
        try:
            smtp = _connected(server)
            closing.callback(smtp.close)
            if server.encryption == "STARTTLS":
                smtp.starttls(context=ssl.create_default_context())
            if server.user:
                smtp.login(server.user, server.password)
        except smtplib.SMTPAuthenticationError as error:
            said = _said(error.smtp_code, error.smtp_error)
            raise MailError(f"{server.shown} refuses the user or the password in {_URL}: {said}") from None
        except (smtplib.SMTPException, OSError) as error:
            remedy = f"See that {_URL} is right, and that the server offers TLS with a valid certificate."
            raise CannotConnectError(f"mail server {server.shown}", str(error), remedy) from None
        yield smtp
        with contextlib.suppress(smtplib.SMTPException, OSError):  # the mail is sent, whatever comes now
            smtp.quit()


def _connected(server: _Server) -> smtplib.SMTP:
    if server.encryption == "at once":
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(server.host, server.port, timeout=_PATIENCE_S, context=context)
    return smtplib.SMTP(server.host, server.port, timeout=_PATIENCE_S)


def _said(code: int, reason: bytes | str) -> str:
    text = reason.decode(errors="replace") if isinstance(reason, bytes) else reason
    return f"{code} {' '.join(text.split())}"
