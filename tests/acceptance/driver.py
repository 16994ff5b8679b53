"""A program that tests start and kill: it runs jobs whose tools leave a line in a ledger for each call.

Orders come by standard input, news go to standard output, one JSON document per line. It closes when the orders end.
"""

import asyncio
import json
import os
import sys
import time
from typing import Any

import comagent

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
    """Fifty tasks per stage: a slow one, two rows of cheap ones, and their sum, for which the next stage waits."""
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


if __name__ == "__main__":
    with comagent.connect() as client:
        tell(connected=True)
        for line in sys.stdin:
            order = json.loads(line)
            job = client.submit(staged(order["stages"], order["ledger"]))
            tell(submitted=job.job_id)
            tell(result=job.result(timeout=100))
    tell(closed=True)
