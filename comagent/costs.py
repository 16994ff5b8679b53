"""What tools cost, learnt from the attempts that ran: it decides which tasks are fused into units.

A tool is *cheap* while its attempts take less than a millisecond on average. A tool of unknown cost is tried alone
first, then in units of ten and of a hundred: a wrong guess then delays little.
"""

import math

from comagent.plan import ToolUse

CHEAP_MS = 1.0
UNIT_MS = 25.0
"""Longest that a unit should take: an agent hands the rest of a slow one back soon after."""
GRAIN_MS = 2.0
"""Shortest that is worth a message of its own."""
LARGEST_UNIT = 1000
DECLARED_MS = 0.05
"""What a tool that is declared cheap is taken to cost until it was seen."""
LEAST_MS = 0.001
"""Less than clocks can tell."""
MEMORY = 0.2
"""Weight of the newest observation once a hundred attempts were seen."""


class Cost:
    """The cost of one tool: a geometric mean, because a busy machine makes one attempt a thousand times longer."""

    __slots__ = ("_log", "declared", "seen")

    def __init__(self, declared: str):
        self.declared = declared
        self.seen = 0
        self._log = math.log(DECLARED_MS if declared == "cheap" else CHEAP_MS)

    def observe(self, attempts: int, total_ms: float) -> None:
        """Adds what `attempts` attempts took in all."""
        weight = max(attempts / (self.seen + attempts), MEMORY)
        self._log += (math.log(max(total_ms / attempts, LEAST_MS)) - self._log) * weight
        self.seen += attempts

    @property
    def mean_ms(self) -> float:
        """What an attempt takes."""
        return math.exp(self._log)

    @property
    def cheap(self) -> bool:
        if self.declared == "costly":
            return False
        if self.seen == 0:
            return self.declared == "cheap"
        return self.mean_ms < CHEAP_MS

    @property
    def largest_unit(self) -> int:
        """How many attempts may go together."""
        if self.declared != "cheap" and self.seen < 100:
            return 10 if self.seen < 10 else 100
        return max(1, min(LARGEST_UNIT, int(UNIT_MS / self.mean_ms)))

    @property
    def grain(self) -> int:
        """How many attempts are worth a message."""
        return max(1, min(self.largest_unit, int(GRAIN_MS / self.mean_ms)))


class Costs:
    """The costs of all tools seen, by tool and version of its source."""

    def __init__(self) -> None:
        self._costs: dict[tuple[object, ...], Cost] = {}

    def of(self, tool: ToolUse, declared: str | None) -> Cost:
        """The cost of `tool`; what a task declares goes before what its tool declares."""
        key = (tool.code, tool.name, declared)
        cost = self._costs.get(key)
        if cost is None:
            cost = self._costs[key] = Cost(declared or tool.cost)
        return cost
