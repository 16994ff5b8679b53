"""A program that tests start and kill: it runs one job, whose tools leave a line in a ledger, and tells what it does.

    python driver.py run HOME LEDGER STAGES
    python driver.py resume HOME

Standard output is one JSON document per line.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import comagent
from comagent.client import Client
from comagent.config import Config
from comagent.coordination import EmbeddedCoordination
from comagent.store import store_at

WIDTH = 48
"""Cheap tasks of one stage; with the gate before them and the sum after them a stage has fifty tasks."""
GATE_S = 0.12
PRIME = 1_000_003


def enter(ledger: str, context: comagent.ToolContext) -> None:
    """One write of one line at the end of the file: lines of several processes do not mix."""
    file = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{context.task} {context.attempt} {os.getpid()}\n".encode())
    os.close(file)


@comagent.tool(kind="inline", cost="cheap")
def add(values: list[int], ledger: str, context: comagent.ToolContext) -> int:
    """The sum of the values, plus one."""
    enter(ledger, context)
    return (sum(values) + 1) % PRIME


@comagent.tool
async def linger(value: int, ledger: str, context: comagent.ToolContext) -> int:
    """The value, after a while."""
    enter(ledger, context)
    await asyncio.sleep(GATE_S)
    return value


@comagent.tool(kind="thread", cost="costly")
def block(value: int, ledger: str, context: comagent.ToolContext) -> int:
    """The value, after a while in which a thread is held."""
    enter(ledger, context)
    time.sleep(GATE_S)
    return value


def staged(stages: int, ledger: str) -> dict[str, Any]:
    """A job of fifty tasks per stage: a slow one, then two rows of cheap ones, then their sum, on which the next waits."""
    tasks: list[dict[str, Any]] = []

    def task(name: str, tool: str, **arguments: Any) -> None:
        tasks.append({"id": name, "tool": tool, "with": {**arguments, "ledger": ledger}})

    for stage in range(stages):
        before: Any = f"${{tasks.sum{stage - 1}}}" if stage else 1
        task(f"gate{stage}", "block" if stage % 2 else "linger", value=before)
        half = WIDTH // 2
        for number in range(half):
            task(f"a{stage}_{number}", "add", values=[f"${{tasks.gate{stage}}}"])
        for number in range(half):
            above = [f"${{tasks.a{stage}_{number}}}", f"${{tasks.a{stage}_{(number + 1) % half}}}"]
            task(f"b{stage}_{number}", "add", values=above)
        task(f"sum{stage}", "add", values=[f"${{tasks.b{stage}_{number}}}" for number in range(half)])
    return {"name": "staged", "tasks": tasks, "outputs": {"sum": f"${{tasks.sum{stages - 1}}}"}}


def expected(stages: int) -> int:
    """What the job of so many stages gives."""
    value = 1
    for _ in range(stages):
        first = (value + 1) % PRIME
        second = (2 * first + 1) % PRIME
        value = (WIDTH // 2 * second + 1) % PRIME
    return value


def tell(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def run(client: Client, ledger: str, stages: int) -> None:
    job = client.submit(staged(stages, ledger))
    tell(submitted=job.job_id)
    tell(result=job.result(timeout=100))


def resume(client: Client, home: Path) -> None:
    """Goes on with every job whose owner is gone."""
    coordination = EmbeddedCoordination(home / "coordination.db")
    coordination.open()
    own = {lease.shard for lease in coordination.leases()}
    store = store_at(f"sqlite:///{home / 'store.db'}")
    store.open()
    tell(leases=sorted(own), unfinished=store.unfinished())


if __name__ == "__main__":
    home = Path(sys.argv[2])
    with comagent.connect(config=Config(home=home)) as client:
        tell(connected=os.getpid())
        if sys.argv[1] == "run":
            run(client, sys.argv[3], int(sys.argv[4]))
        else:
            resume(client, home)
    tell(closed=True)
