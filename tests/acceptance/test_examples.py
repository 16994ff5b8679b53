"""The processes in `configs/processes` and the programs in `examples` do what they say."""

import email
import email.policy
import subprocess
import sys
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from comagent.client import Client
from comagent.config import Config
from comagent.embedded import connect
from comagent.submission import prepare_file
from tests.acceptance.conftest import ROOT, Program

PROCESSES = ROOT / "configs" / "processes"
WAIT_S = 60.0


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a small repository and a log in it."""
    folder = tmp_path_factory.mktemp("workspace")
    (folder / "package" / ".hidden").mkdir(parents=True)
    (folder / "README.md").write_text("# Something\n")
    (folder / "package" / "long.py").write_text("x = 1\n" * 100)
    (folder / "package" / "short.py").write_text("")
    (folder / "package" / ".hidden" / "not_counted.py").write_text("")
    (folder / "own.log").write_text("12:00 INFO fine\n12:01 ERROR broken\n12:02 ERROR broken\n")
    return folder


@pytest.fixture(scope="module")
def client(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """One run for all examples that are processes."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("COMAGENT_HOME", str(home))
        environment.setenv("COMAGENT_WORKSPACE", str(workspace))
        environment.delenv("COMAGENT_SMTP_URL", raising=False)
        with connect(config=Config(home=home, cpus=2, agents=2)) as connected:
            yield connected


def outputs(client: Client, name: str, **inputs: Any) -> dict[str, Any]:
    result: dict[str, Any] = client.submit(PROCESSES / name, inputs=inputs).result(WAIT_S)
    return result


@pytest.mark.parametrize("path", sorted(PROCESSES.iterdir()), ids=lambda path: path.name)
def test_every_process_that_comes_with_comagent_is_valid(path: Path) -> None:
    prepare_file(path)


def test_the_aaas_example_reads_a_table_and_mails_it(comagent: Program) -> None:
    done = comagent("run", str(PROCESSES / "data-ingestion.json"), "--quiet", COMAGENT_SMTP_URL="")
    assert done.code == 0, done.err
    (mail,) = (comagent.home / "outbox").iterdir()
    assert str(mail) in done.out

    message = email.message_from_bytes(mail.read_bytes(), policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert message["to"] == "operator@localhost"
    html = message.get_content()
    titles = ["order_id", "ordered_on", "customer", "country", "product", "quantity", "unit_price", "paid"]
    assert "".join(f"<th>{title}</th>" for title in titles) in html
    assert "<td>Basalt &amp; Sons</td>" in html
    assert html.count("<tr>") == len((ROOT / "configs" / "data" / "orders.csv").read_text().splitlines())


def test_log_triage_counts_what_three_logs_complain_about(client: Client) -> None:
    found = outputs(client, "log-triage.yaml")
    assert "web.log: 4 findings\n" in found["report"]
    assert "  ERROR    2 x  GET /orders 503: database does not answer\n" in found["report"]
    assert found["worst"] == [{"level": "CRITICAL", "message": "no space left on device"}]


def test_log_triage_reads_logs_of_the_workspace(client: Client) -> None:
    logs = dict.fromkeys(("web", "worker", "database"), "own.log")
    found = outputs(client, "log-triage.yaml", source="workspace", **logs)
    assert found["report"].count("own.log: 2 findings\n  ERROR    2 x  broken\n") == 3
    assert found["worst"] == []


def test_the_repository_report_says_what_there_is_and_what_is_missing(client: Client) -> None:
    found = outputs(client, "repository-report.yaml")
    assert found["python_files"] == 2
    assert "*.py" in found["report"]
    assert "largest: package/long.py" in found["report"]
    assert [finding.partition(" (")[0] for finding in found["findings"]] == [
        "no LICENSE",
        "no CHANGELOG.md",
        "no folder of tests",
    ]


def test_the_driver_runs_functions_of_its_own(comagent: Program) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "driver.py")],
        cwd=comagent.folder,
        env=comagent.environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *table, last = done.stdout.splitlines()
    assert sorted(line.split()[0] for line in table) == ["argparse", "csv", "tarfile"]
    lines = {line.split()[0]: int(line.split()[1]) for line in table}
    assert list(lines.values()) == sorted(lines.values(), reverse=True)
    assert last == f"the first two have {lines['argparse'] + lines['csv']} lines together"
