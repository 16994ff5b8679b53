"""Questions about a whole graph of tasks that a person asks: where is the cycle, what lies upstream.

The engine sorts its own arrays; nothing here is on the way of a running job.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["ancestors", "descendants", "digraph", "find_cycle"]


def digraph(ids: Sequence[str], needs: Mapping[str, Iterable[str]]) -> "nx.DiGraph[str]":
    """The tasks as nodes in the given order, an edge from each need to the task that needs it.

    Needs that are not in `ids` are left out.
    """
    import networkx as nx  # takes 80 ms, which the engine's processes do without

    known = set(ids)
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(ids)
    graph.add_edges_from((need, task) for task in ids for need in needs.get(task, ()) if need in known)
    return graph


def find_cycle(ids: Sequence[str], needs: Mapping[str, Iterable[str]]) -> list[str] | None:
    """One cycle, such as `["a", "b", "a"]`, or None where there is none.

    Every task comes after one that it needs; the cycle starts and ends with whichever is first in `ids`.
    """
    import networkx as nx

    graph = digraph(ids, needs)
    try:
        edges = nx.find_cycle(graph)
    except nx.NetworkXNoCycle:
        return None
    order = {task: index for index, task in enumerate(ids)}
    cycle = [tail for tail, _ in edges]
    start = cycle.index(min(cycle, key=order.__getitem__))
    return [*cycle[start:], *cycle[: start + 1]]


def ancestors(ids: Sequence[str], needs: Mapping[str, Iterable[str]], task: str) -> set[str]:
    """All tasks that must come before `task`."""
    import networkx as nx

    return set(nx.ancestors(digraph(ids, needs), task))


def descendants(ids: Sequence[str], needs: Mapping[str, Iterable[str]], task: str) -> set[str]:
    """All tasks that must come after `task`."""
    import networkx as nx

    return set(nx.descendants(digraph(ids, needs), task))
