"""Graphs to run: as edges for whoever wants a graph, as processes for ComAgent. The tasks take no time."""

import random
from typing import Any

Edges = dict[str, list[str]]
"""The needs of each task, in an order in which every task comes after what it needs."""


def chain(length: int) -> Edges:
    """Each task needs the one before."""
    return {f"t{number}": [f"t{number - 1}"] if number else [] for number in range(length)}


def fan_out(width: int) -> Edges:
    """One task, and `width` tasks that need it."""
    return {"root": []} | {f"t{number}": ["root"] for number in range(width)}


def layered(depth: int, width: int, *, needs: int = 3, seed: int = 0) -> Edges:
    """`depth` layers of `width` tasks, each of which needs `needs` random tasks of the layer above."""
    pick = random.Random(seed)
    edges: Edges = {}
    above: list[str] = []
    for layer in range(depth):
        row = [f"t{layer}_{number}" for number in range(width)]
        for task in row:
            edges[task] = pick.sample(above, min(needs, len(above)))
        above = row
    return edges


def process(name: str, edges: Edges) -> dict[str, Any]:
    """A process in which each task passes on the value of the first task that it needs."""
    tasks = [
        {
            "id": task,
            "tool": "debug.echo",
            "with": {"value": f"${{tasks.{needs[0]}}}" if needs else 1},
            "needs": needs,
        }
        for task, needs in edges.items()
    ]
    return {"name": name, "tasks": tasks, "outputs": {"last": f"${{tasks.{next(reversed(edges))}}}"}}


def waits(count: int, seconds: float) -> dict[str, Any]:
    """`count` tasks side by side, each of which waits."""
    tasks = [{"id": f"w{number}", "tool": "debug.sleep", "with": {"seconds": seconds}} for number in range(count)]
    return {"name": "waits", "tasks": tasks, "outputs": {}}
