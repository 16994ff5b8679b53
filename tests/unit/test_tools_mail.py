"""`mail.send` where no mail server is configured, and what it refuses."""

import email.policy
import stat
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from comagent.errors import ArgumentError
from comagent.tools import ToolContext
from comagent.tools.loading import load
from comagent.tools.mail import MailError, Sent, send
from comagent.tools.registry import resolve
from comagent.tools.workspace import PathRefusedError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("COMAGENT_SMTP_URL", "COMAGENT_MAIL_FROM", "COMAGENT_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COMAGENT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def context(task: str = "report", attempt: int = 1) -> ToolContext:
    return ToolContext("job", task, attempt, (1, attempt), f"job/{task}")


def read(sent: Sent) -> EmailMessage:
    parsed = BytesParser(EmailMessage, policy=email.policy.default).parsebytes(Path(sent["where"]).read_bytes())
    assert parsed.defects == []
    return parsed


def words(part: Any) -> str:
    assert isinstance(part, EmailMessage)
    return str(part.get_content()).replace("\r\n", "\n")


def test_a_mail_goes_to_the_outbox_where_no_server_is_configured(home: Path) -> None:
    spec = resolve("mail.send")
    arguments = {"to": "Ann Ö <ann@example.org>", "subject": "Größe: 5 µm", "text": "Grüße\n.\nend\n"}
    sent = load(spec.code).call(arguments, context())
    jsonschema.validate(sent, spec.returns or {})
    assert (sent["via"], sent["refused"], Path(sent["where"]).parent) == ("outbox", {}, home / "outbox")
    mail = read(sent)
    assert (mail["To"], mail["Subject"], mail["From"]) == (*list(arguments.values())[:2], "comagent@localhost")
    assert (mail["Message-ID"], mail["MIME-Version"]) == (sent["message_id"], "1.0")
    assert mail["Date"].datetime.tzinfo is not None
    assert words(mail) == arguments["text"]


def test_the_file_is_plain_ascii_with_the_line_ends_of_mail_and_for_its_owner_alone(home: Path) -> None:
    file = Path(send("ann@example.org", "é" * 200, text="long " * 1000 + "é")["where"])
    data = file.read_bytes()
    assert data.isascii()
    assert data.count(b"\n") == data.count(b"\r") == data.count(b"\r\n")
    assert max(map(len, data.split(b"\r\n"))) <= 78
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [entry.name for entry in (home / "outbox").iterdir()] == [file.name]


def test_text_and_html_are_two_forms_of_one_mail() -> None:
    mail = read(send("ann@example.org", "s", text="plain", html="<p>rich</p>"))
    assert mail.get_content_type() == "multipart/alternative"
    assert words(mail.get_body(("plain",))) == "plain\n"
    assert words(mail.get_body(("html",))) == "<p>rich</p>\n"
    alone = read(send("ann@example.org", "s", html="<p>rich</p>"))
    assert alone.get_content_type() == "text/html"
    with pytest.raises(ArgumentError, match="neither text nor html"):
        send("ann@example.org", "s")


def test_everybody_who_is_to_get_it_is_in_the_file() -> None:
    mail = read(
        send(["a@x.org", "B <b@x.org>, c@x.org"], "s", text="", cc="d@x.org", bcc=["e@x.org"], sender="f@x.org")
    )
    headers = {name: [address.addr_spec for address in mail[name].addresses] for name in ("To", "Cc", "Bcc", "From")}
    assert headers == {
        "To": ["a@x.org", "b@x.org", "c@x.org"],
        "Cc": ["d@x.org"],
        "Bcc": ["e@x.org"],
        "From": ["f@x.org"],
    }
    assert read(send([], "s", text="", bcc="e@x.org"))["To"] is None
    with pytest.raises(ArgumentError, match="there is no recipient"):
        send([], "s", text="")


def test_the_sender_is_the_configured_one_unless_the_mail_names_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMAGENT_MAIL_FROM", "Reports <reports@example.org>")
    sent = send("ann@example.org", "s", text="")
    assert read(sent)["From"] == "Reports <reports@example.org>"
    assert sent["message_id"].endswith("@example.org>")
    assert read(send("ann@example.org", "s", text="", sender="b@x.org"))["From"] == "b@x.org"
    with pytest.raises(ArgumentError, match='"sender" names 2 addresses'):
        send("ann@example.org", "s", text="", sender="a@x.org, b@x.org")
    monkeypatch.setenv("COMAGENT_MAIL_FROM", "nobody")
    with pytest.raises(ArgumentError, match='"COMAGENT_MAIL_FROM" is no address'):
        send("ann@example.org", "s", text="")


def test_files_of_the_workspace_are_attached(home: Path) -> None:
    folder = home / "workspace" / "out"
    folder.mkdir(parents=True)
    contents = {"table.csv": b"a\r\n\xff", "data.json.gz": b"\x1f\x8b", "old mail.eml": b"a: b\n", "unknown": b""}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    mail = read(send("ann@example.org", "s", text="see", attachments=[f"out/{name}" for name in contents]))
    attached = list(mail.iter_attachments())
    assert {part.get_filename(): part.get_payload(decode=True) for part in attached} == contents
    assert [part.get_content_type() for part in attached] == ["text/csv", *["application/octet-stream"] * 3]
    assert words(mail.get_body()) == "see\n"


def test_only_files_of_the_workspace_are_attached_and_no_large_ones(home: Path) -> None:
    with pytest.raises(PathRefusedError):
        send("ann@example.org", "s", text="", attachments=["/etc/passwd"])
    with pytest.raises(FileNotFoundError, match=r"there is no file none\.txt in the workspace"):
        send("ann@example.org", "s", text="", attachments=["none.txt"])
    with (home / "workspace" / "large").open("wb") as large:
        large.truncate(13 * 2**20)
    with pytest.raises(MailError, match="the attachments have more than 25 MiB"):
        send("ann@example.org", "s", text="", attachments=["large", "large"])


def test_every_attempt_at_a_task_is_the_same_mail(home: Path) -> None:
    first = send("ann@example.org", "s", text="t", context=context())
    before = Path(first["where"]).read_bytes()
    assert send("ann@example.org", "s", text="t", context=context(attempt=2)) == first
    assert Path(first["where"]).read_bytes() == before
    assert len(list((home / "outbox").iterdir())) == 1


def test_other_tasks_and_other_words_are_other_mails() -> None:
    mails = [
        send("ann@example.org", "s", text="t", context=context()),
        send("ann@example.org", "s", text="t", context=context("other")),
        send("ann@example.org", "s", text="other", context=context()),
        send("ann@example.org", "s", text="t"),
        send("ann@example.org", "s", text="t"),
    ]
    assert len({mail["message_id"] for mail in mails}) == len({mail["where"] for mail in mails}) == 5


@pytest.mark.parametrize("field", ["to", "cc", "bcc", "sender", "subject"])
@pytest.mark.parametrize("end", ["\r\n", "\n", "\r", "\0", "\x0b", "\x85", "\u2028"])
def test_nothing_can_start_a_header_of_its_own(field: str, end: str, home: Path) -> None:
    arguments: dict[str, Any] = {"to": "a@x.org", "subject": "s", "text": ""}
    arguments[field] = f"a@x.org{end}Bcc: victim@x.org"
    with pytest.raises(ArgumentError, match=f'"{field}" has a line break or another control character'):
        send(**arguments)
    assert not home.exists()


@pytest.mark.parametrize(
    "address", ["", "ann", "ann@", "@example.org", "ann b@example.org", "ann@example.org>", "Smith, Ann <a@x.org>"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ArgumentError, match="is no address"):
        send(address, "s", text="")


def test_a_host_of_other_letters_is_written_as_mail_servers_know_it() -> None:
    assert read(send("Ann <ann@bücher.example>", "s", text=""))["To"] == "Ann <ann@xn--bcher-kva.example>"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("mail.example.org", "cannot be read"),
        ("http://me:S3cret@host", "cannot be read"),
        ("smtp://me:S3cret@host:S3cret", "cannot be read"),
        ("smtp://me:S3cret/x@host", "cannot be read"),
        ("smtp://me:S3cret@host?tls=S3cret", "has an option that is not known"),
        ("smtps://me:S3cret@host?tls=none", "has an option that is not known"),
        ("smtp://me:S3cret%C3%BC@host", "is not ASCII"),
        ("smtp://me:S3cret@mail.example.org?tls=none", "mail.example.org is another"),
    ],
)
def test_settings_that_cannot_be_read_are_told_without_the_password(
    url: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMAGENT_SMTP_URL", url)
    with pytest.raises(MailError, match=problem) as refused:
        send("ann@example.org", "s", text="", sender="a@x.org")
    assert "S3cret" not in str(refused.value)


def test_a_mail_for_a_server_needs_a_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMAGENT_SMTP_URL", "smtp://localhost")
    with pytest.raises(ArgumentError, match=r'there is no sender\. Give "sender", or set COMAGENT_MAIL_FROM'):
        send("ann@example.org", "s", text="")


def test_it_tells_the_truth_about_itself() -> None:
    spec = resolve("mail.send")
    assert (spec.kind, spec.effects) == ("process", "some")
