"""Where tools run, how many at a time, and how they are found: by name, in a package, in the driver's own file."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from comagent.client import Client, Job
from comagent.config import Config
from comagent.store import store_at
from tests.toolbox import named
from tests.waiting import gone, runs, until, written

WAIT_S = 60.0


def process(*tasks: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"name": "test", "tasks": list(tasks), **rest}


def task(id: str, function: str, arguments: dict[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    return {"id": id, "tool": named(function), "with": arguments or {}, **rest}


def dispatches(home: Path, job: Job) -> dict[str, str]:
    """In which dispatch each task ran."""
    store = store_at(Config(home=home).store_url)
    store.open()
    try:
        return {row.outcome.task: row.outcome.dispatch for row in store.progress(job.job_id)}
    finally:
        store.close()


# Where they run ------------------------------------------------------------------------------------------------------


def test_inline_thread_and_async_tools_run_in_an_agent(client: Client) -> None:
    tasks = [task(kind, f"where_{kind}") for kind in ("inline", "thread", "async")]
    result = client.submit(process(*tasks)).result(WAIT_S)

    assert all(pid != os.getpid() and runs(pid) for pid, _ in result.values())


def test_a_process_tool_has_a_process_of_its_own_which_an_agent_has_started(client: Client) -> None:
    result = client.submit(process(*(task(f"t{n}", "where_process") for n in range(3)))).result(WAIT_S)

    pids = {pid for pid, _ in result.values()}
    assert len(pids) == 3
    assert not pids & {os.getpid(), *(parent for _, parent in result.values())}
    until(gone(pids))


def test_an_agent_runs_eight_blocking_tools_at_a_time(client: Client, tmp_path: Path) -> None:
    """All of them wait for each other: fewer slots than that and none would end."""
    count = 2 * 8
    tasks = [task(f"t{n}", "meet", {"folder": str(tmp_path), "count": count}) for n in range(count)]
    job = client.submit(process(*tasks))

    assert job.result(WAIT_S) == {f"t{n}": count for n in range(count)}


def test_a_thousand_coroutines_wait_at_the_same_time(client: Client, tmp_path: Path) -> None:
    count = 1000
    tasks = [task(f"t{n}", "meet_later", {"folder": str(tmp_path), "count": count}) for n in range(count)]
    job = client.submit(process(*tasks))

    assert set(job.result(WAIT_S).values()) == {count}


@pytest.mark.parametrize("kind", ["cancel", "timeout"])
def test_what_a_stopped_process_has_started_is_gone_too(client: Client, tmp_path: Path, kind: str) -> None:
    mark = tmp_path / "mark"
    rest = {"timeout": "2s"} if kind == "timeout" else {}
    job = client.submit(process(task("a", "hang_with_children", {"mark": str(mark)}, **rest)))
    until(written(mark))
    pids = [int(pid) for pid in mark.read_text().split()]
    assert all(runs(pid) for pid in pids)
    if kind == "cancel":
        job.cancel()
    assert job.wait(WAIT_S) is not None

    until(gone(pids))


def test_a_slow_tool_that_is_declared_cheap_delays_nobody(client: Client, tmp_path: Path) -> None:
    """Its neighbours have all ended while it still runs, although it was first and they were to run after it."""
    mark = tmp_path / "mark"
    tasks = [task("slow", "wait_though_cheap", {"mark": str(mark), "until": str(tmp_path / "go")})]
    tasks += [task(f"t{n}", "double", {"value": n}) for n in range(500)]
    job = client.submit(process(*tasks))
    until(written(mark))
    others = client.submit_many([(process(task("a", "double", {"value": 1})), {})] * 20)
    for other in others:
        assert other.result(WAIT_S) == {"a": 2}
    until(lambda: job.view().done == 500)
    assert job.status == "running"
    (tmp_path / "go").touch()

    result = job.result(WAIT_S)
    assert result["slow"] == "slow"
    assert all(result[f"t{n}"] == 2 * n for n in range(500))
    attempts = {end.path: end.attempt for progress in job.progress() for end in progress.ends}
    assert set(attempts.values()) == {1}


# How they are put together -------------------------------------------------------------------------------------------


def test_cheap_tasks_share_dispatches_and_costly_ones_do_not(client: Client, home: Path) -> None:
    cheap = client.submit(process(*({"id": f"t{n}", "tool": "debug.echo", "with": {"value": n}} for n in range(100))))
    costly = client.submit(
        process(
            *({"id": f"t{n}", "tool": "debug.echo", "with": {"value": n}, "cost": "costly"} for n in range(20)),
        )
    )
    cheap.result(WAIT_S)
    costly.result(WAIT_S)

    assert len(set(dispatches(home, cheap).values())) <= 10
    assert len(set(dispatches(home, costly).values())) >= 20


def test_a_tool_of_unknown_cost_is_tried_alone_and_then_put_in_batches(
    client: Client, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "unseen.py").write_text("def quick(value: int) -> int:\n    return value\n")
    file = tmp_path / "process.yaml"
    tasks = "\n".join(f"  - {{id: t{n}, tool: 'python:unseen.quick', with: {{value: {n}}}}}" for n in range(1000))
    file.write_text(f"name: unseen\ntasks:\n{tasks}\n")

    def sizes() -> list[int]:
        job = client.submit(file)
        assert job.result(WAIT_S) == {f"t{n}": n for n in range(1000)}
        used = [dispatch for path, dispatch in dispatches(home, job).items() if not path.startswith("/")]
        return sorted(used.count(dispatch) for dispatch in dict.fromkeys(used))

    assert sizes()[0] == 1
    # On a busy machine one job may not be enough to see how cheap the tool is.
    until(lambda: sizes()[-1] > 50)


# What they are told --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["inline", "thread", "async", "process"])
def test_every_attempt_has_the_same_idempotency_key(client: Client, kind: str) -> None:
    retry = {"attempts": 3, "delay": "10ms", "jitter": 0}
    job = client.submit(process(task("a", f"context_{kind}", {"fail": 2}, retry=retry, timeout="60s")))
    told = job.result(WAIT_S)["a"]
    keys = [end.error["message"] for news in job.progress() for end in news.ends if end.path == "a" and end.error]

    assert keys == [f"{job.job_id}/a"] * 2
    assert told["key"] == f"{job.job_id}/a"
    assert (told["job_id"], told["task"], told["attempt"]) == (job.job_id, "a", 3)
    assert told["epoch"] > [0, 0]
    assert told["deadline_ms"] > 0


# How they are found --------------------------------------------------------------------------------------------------

PACKAGE = """
from shop.prices import PRICE

class Basket:
    @staticmethod
    def total(count: int) -> int:
        return count * PRICE

async def later(count: int) -> int:
    return count
"""


def test_functions_of_a_package_beside_the_process_file_are_found(client: Client, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "prices.py").write_text("PRICE = 7\n")
    (tmp_path / "shop" / "tools.py").write_text(PACKAGE)
    file = tmp_path / "process.yaml"
    file.write_text(
        """
name: shop
tasks:
  - {id: a, tool: "python:shop.tools.later", with: {count: 3}}
  - {id: b, tool: "python:shop.tools.Basket.total", with: {count: "${tasks.a}"}}
"""
    )

    assert client.submit(file).result(WAIT_S) == {"b": 21}


DRIVER = '''
import sys
import time
from dataclasses import dataclass

import comagent
from comagent.config import Config
from pathlib import Path

print("loaded as", __name__, file=sys.stderr)
time.sleep(0.3)  # long enough for several threads of an agent to want this file at the same time


@dataclass
class Count:
    words: int


@comagent.tool
def count_words(text: str) -> Count:
    """Count words."""
    return Count(len(text.split()))


@comagent.tool(name="shout", kind="inline", cost="cheap")
def shout_it(text: str) -> str:
    return text.upper()


@comagent.tool(kind="process")
def apart(number: int) -> int:
    return number + 1


@comagent.tool
async def later(number: int) -> int:
    return number + 1


@comagent.tool
def bad() -> None:
    raise LookupError("in the driver")


if __name__ == "__main__":
    with comagent.connect(config=Config(home=Path(sys.argv[1]), agents=1, cpus=1)) as client:
        job = client.submit({
            "name": "words",
            "inputs": {"text": {"type": "string"}},
            "tasks": [
                {"id": "loud", "tool": "shout", "with": {"text": "${inputs.text}"}},
                {"id": "count", "tool": "count_words", "with": {"text": "${tasks.loud}"}},
                {"id": "apart", "tool": "apart", "with": {"number": "${tasks.count.words}"}},
                {"id": "later", "tool": "later", "with": {"number": "${tasks.apart}"}},
                {"id": "bad", "tool": "bad", "on_failure": "skip"},
                *({"id": f"w{n}", "tool": "count_words", "with": {"text": "a b"}, "cost": "costly"} for n in range(8)),
            ],
            "outputs": {"loud": "${tasks.loud}", "later": "${tasks.later}"},
        }, {"text": "to be or not"})
        print(job.result(timeout=60))
        print(client.failures(job.job_id))
'''


def test_tools_that_a_driver_script_declares_run_in_its_agents(tmp_path: Path) -> None:
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    done = subprocess.run(
        [sys.executable, driver, tmp_path / "home"], capture_output=True, text=True, timeout=110, check=False
    )

    assert done.returncode == 0, done.stderr
    result, failures = done.stdout.splitlines()
    assert result == "{'later': 6, 'loud': 'TO BE OR NOT'}"
    assert failures == "[('bad', 'failed', 'LookupError: in the driver')]"
    assert done.stderr.count("loaded as __main__") == 1
