"""`python -m benchmarks`: ComAgent beside the bare mechanism, interleaved, on one Ray. Prints a Markdown table.

Every ComAgent figure is with every task durable (SQLite, synchronous=full), from `submit` of a compiled process to its
result; "with compile" adds reading, checking and compiling the document. The best of a few runs counts for both sides.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.floor import Floor, floor
from benchmarks.workloads import Edges, chain, fan_out, layered, process, waits
from comagent.client import Client
from comagent.config import Config
from comagent.embedded import connect


def timed(work: Callable[[], Any]) -> float:
    """Seconds that `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def compare(client: Client, bare: Floor, name: str, edges: Edges, *, rounds: int) -> str:
    """One row: both sides run the graph in turns."""
    document = process(name, edges)
    compiling = min(timed(lambda: client.prepare(document)) for _ in range(min(3, rounds)))
    prepared = client.prepare(document)
    ours, theirs = [], []
    for _ in range(rounds):
        theirs.append(bare.run(edges))
        ours.append(timed(lambda: client.submit(prepared).result()))
    tasks, best, least = len(edges), min(ours), min(theirs)
    return (
        f"| {name} | {tasks:,} | {tasks / least:,.0f} | {tasks / best:,.0f} | {least / best:.2f} "
        f"| {tasks / (best + compiling):,.0f} | {least / (best + compiling):.2f} |"
    )


def latency(client: Client, bare: Floor, *, rounds: int) -> str:
    """One row: a job of five tasks, from submit to result."""
    edges = chain(5)
    prepared = client.prepare(process("five tasks", edges))
    ours, theirs = [], []
    for _ in range(rounds):
        theirs.append(bare.run(edges) * 1000)
        ours.append(timed(lambda: client.submit(prepared).result()) * 1000)
    return f"| five-task job, p50 | {statistics.median(theirs):.1f} ms | {statistics.median(ours):.1f} ms |"


def many_jobs(client: Client, *, rounds: int) -> str:
    """One row: two hundred jobs of five tasks, submitted together."""
    prepared = client.prepare(process("five tasks", chain(5)))

    def run() -> None:
        left = {job.job_id: job for job in client.submit_many([(prepared, {})] * 200)}
        while left:
            for job_id in client.wait_any(list(left.values())):
                del left[job_id]

    return f"| 200 jobs of 5 tasks | | {1000 / min(timed(run) for _ in range(rounds)):,.0f} tasks/s |"


def waiting(client: Client, *, rounds: int) -> str:
    """One row: two hundred waits of 50 ms side by side."""
    prepared = client.prepare(waits(200, 0.05))
    best = min(timed(lambda: client.submit(prepared).result()) for _ in range(rounds))
    return f"| 200 waits of 50 ms | 50.0 ms | {best * 1000:.1f} ms |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, without the largest graph")
    quick = parser.parse_args().quick
    rounds = 3 if quick else 7
    graphs = {
        "chain": chain(200),
        "fan-out": fan_out(1000),
        "layered": layered(10, 100),
        "layered, wide": layered(10, 1000),
    }
    if not quick:
        graphs["layered, large"] = layered(50, 2000)
    with tempfile.TemporaryDirectory() as home, connect(config=Config(home=Path(home))) as client, floor() as bare:
        bare.run(chain(10))
        client.submit(process("warm-up", chain(10))).result()
        print("| graph | tasks | floor, tasks/s | ComAgent, tasks/s | ratio | with compile, tasks/s | ratio |")
        print("|---|---|---|---|---|---|---|")
        for name, edges in graphs.items():
            print(compare(client, bare, name, edges, rounds=rounds), flush=True)
        print("\n| | floor | ComAgent |\n|---|---|---|")
        print(latency(client, bare, rounds=rounds * 10), flush=True)
        print(many_jobs(client, rounds=rounds), flush=True)
        print(waiting(client, rounds=rounds), flush=True)


if __name__ == "__main__":
    main()
