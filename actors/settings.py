"""What an actor is told when it is made: literals only, because making one must not be able to fail."""

from dataclasses import dataclass
from pathlib import Path

from comagent.coordination.base import Coordination
from comagent.coordination.embedded import EmbeddedCoordination
from comagent.store import store_at
from comagent.store.base import Store


@dataclass(frozen=True, slots=True)
class Settings:
    """One shard, as all of its actors know it."""

    shard: str
    region: str
    store_url: str
    coordination_path: str
    documents: str
    agents: int
    """Size of the pool."""
    owner: tuple[int, float] | None
    """Process (pid, start time) with which everything ends; None on a cluster."""
    ref_edges: bool = False
    """Whether cheap units may be sent ahead of what they need, to be started by object refs."""
    ttl_s: float = 3.0
    """A lease whose counter stands still for so long has expired."""
    beat_s: float = 1.0


def open_store(settings: Settings) -> Store:
    return store_at(settings.store_url)


def open_coordination(settings: Settings) -> Coordination:
    return EmbeddedCoordination(Path(settings.coordination_path))
