"""How an observer tells, without trusting anybody's clock but its own, that the owner of a lease is gone."""

from comagent.coordination.base import Epoch, Lease
from comagent.coordination.processes import boot_id, is_alive


class LeaseWatch:
    """Watches the counters of leases. A lease has expired when its counter stands still for a time to live.

    The first sight of a lease says nothing about its age, so the time to live counts from there.
    """

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._seen: dict[str, tuple[Epoch, int, float]] = {}

    def observe(self, lease: Lease, now_s: float) -> bool:
        """Whether the lease has expired at `now_s` of the observer's monotonic clock."""
        epoch, counter, since_s = self._seen.get(lease.shard, (lease.epoch, -1, now_s))
        if (epoch, counter) != (lease.epoch, lease.counter):
            since_s = now_s
            self._seen[lease.shard] = (lease.epoch, lease.counter, since_s)
        return now_s - since_s >= self._ttl_s

    def forget(self, shard: str) -> None:
        """Drop what is known about a shard whose lease is gone."""
        self._seen.pop(shard, None)


def is_stale_at_once(lease: Lease) -> bool:
    """Whether the owner is known to be dead without waiting: it ran in this boot, and none of its processes lives.

    A paused process lives, and so does an owner elsewhere as far as can be seen from here: their leases have to expire.
    """
    owner = lease.owner
    return bool(owner.processes) and owner.boot_id == boot_id() and not any(map(is_alive, owner.processes))
