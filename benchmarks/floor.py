"""The bare mechanism, as a floor: blocks of tasks on two actors, results passed on by object refs, each block committed
in one durable SQLite transaction before its values are handed on.

It knows one kind of task and no failure, condition, retry, event or specification: what ComAgent adds is its cost.
"""

import asyncio
import json
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from benchmarks.workloads import Edges

BLOCK = 1000
OWNER = 7
"""Stands for the epoch: each block's transaction checks that its job still has it."""


@ray.remote(num_cpus=0)
class Ledger:
    """Commits whatever has arrived, all in one transaction."""

    def __init__(self, path: str):
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._database.execute("pragma journal_mode = wal")
        self._database.execute("pragma synchronous = full")
        self._database.execute("create table jobs (id integer primary key, owner integer)")
        self._database.execute(
            "create table done (job integer, task text, result text, primary key (job, task)) without rowid"
        )
        self._missing: dict[int, int] = {}
        self._over: dict[int, asyncio.Event] = {}
        self._waiting: list[tuple[int, list[tuple[str, int]], asyncio.Future[None]]] = []
        self._committing: asyncio.Task[None] | None = None

    async def begin(self, job: int, tasks: int) -> None:
        self._database.execute("insert into jobs values (?, ?)", (job, OWNER))
        self._missing[job], self._over[job] = tasks, asyncio.Event()

    async def commit(self, job: int, results: list[tuple[str, int]]) -> None:
        durable = asyncio.get_running_loop().create_future()
        self._waiting.append((job, results, durable))
        if self._committing is None:
            self._committing = asyncio.ensure_future(self._commit_all())
        await durable

    async def _commit_all(self) -> None:
        while self._waiting:
            await asyncio.sleep(0)
            batch, self._waiting = self._waiting, []
            self._database.execute("begin immediate")
            for job, results, _ in batch:
                (owner,) = self._database.execute("select owner from jobs where id = ?", (job,)).fetchone()
                if owner != OWNER:
                    raise RuntimeError("the job has another owner")
                rows = [(job, task, json.dumps(value)) for task, value in results]
                self._database.executemany("insert into done values (?, ?, ?)", rows)
            self._database.execute("commit")
            for job, results, durable in batch:
                durable.set_result(None)
                self._missing[job] -= len(results)
                if not self._missing[job]:
                    self._over[job].set()
        self._committing = None

    async def over(self, job: int) -> None:
        await self._over[job].wait()


@ray.remote(num_cpus=0)
class Worker:
    """Runs blocks."""

    def __init__(self, ledger: Any):
        self._ledger = ledger

    async def run(self, job: int, block: list[tuple[str, list[str]]], *given: dict[str, int]) -> dict[str, int]:
        values: dict[str, int] = {}
        for part in given:
            values |= part
        for task, needs in block:
            values[task] = sum([values[need] for need in needs]) % 9973 + 1
        results = [(task, values[task]) for task, _ in block]
        await self._ledger.commit.remote(job, results)
        return dict(results)


class Floor:
    """Two workers and a ledger on the Ray that this process is connected to."""

    def __init__(self, folder: Path):
        self._ledger = Ledger.remote(str(folder / "floor.db"))
        self._workers = [Worker.remote(self._ledger) for _ in range(2)]
        self._job = 0

    def run(self, edges: Edges) -> float:
        """Runs a graph; returns the seconds it took, cutting it into blocks included."""
        began = time.perf_counter()
        self._job += 1
        ray.get(self._ledger.begin.remote(self._job, len(edges)))
        tasks = list(edges.items())
        block_of: dict[str, int] = {}
        values: list[Any] = []
        for number, start in enumerate(range(0, len(tasks), BLOCK)):
            block = tasks[start : start + BLOCK]
            block_of.update((task, number) for task, _ in block)
            given = {block_of[need] for _, needs in block for need in needs} - {number}
            worker = self._workers[number % len(self._workers)]
            values.append(worker.run.remote(self._job, block, *[values[other] for other in sorted(given)]))
        ray.get(self._ledger.over.remote(self._job))
        return time.perf_counter() - began

    def close(self) -> None:
        for actor in (*self._workers, self._ledger):
            ray.kill(actor)


@contextmanager
def floor() -> Iterator[Floor]:
    """A floor with a database of its own; its actors end with the block."""
    with tempfile.TemporaryDirectory() as folder:
        bare = Floor(Path(folder))
        try:
            yield bare
        finally:
            bare.close()
