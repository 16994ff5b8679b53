"""What the engine asks of a coordination service: epochs and leases. Small, short-lived facts; no data of jobs.

A lease says when to *try* a takeover, the compare-and-swap on its epoch decides who gets it, and the epochs in the
store keep out whoever lost.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

Epoch = tuple[int, int]
"""(global epoch, regional epoch), compared lexicographically: a fencing token."""


class OwnedProcess(NamedTuple):
    """One operating system process of a run. Its pid alone may belong to somebody else by now."""

    pid: int
    start_time: float
    """As told by `process_start_time`; to be compared only within one boot."""
    name: str


class Owner(NamedTuple):
    """Where the owner of a lease runs."""

    boot_id: str
    """Processes can be looked up by pid only by an observer with the same boot id."""
    processes: tuple[OwnedProcess, ...] = ()


class Lease(NamedTuple):
    """Who owns a shard, and a counter that shows they live."""

    shard: str
    epoch: Epoch
    scheduler: str
    """Name of the scheduler's actor."""
    supervisor: str
    """Name of the supervisor's actor."""
    counter: int
    owner: Owner


class Coordination(ABC):
    """Epochs and leases, shared by everybody who works on the same store.

    Every method blocks, may be called from any thread, and is atomic. All raise `StoreError` when the service can't be
    reached; a write may then have happened or not.
    """

    @abstractmethod
    def open(self) -> None:
        """Connect, and create what is missing."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back; leases stay. Closing twice is fine."""

    @abstractmethod
    def next_epoch(self, region: str) -> Epoch:
        """An epoch greater than every one given out for this region before, whatever crashed since."""

    @abstractmethod
    def claim(self, lease: Lease, *, expected: Lease | None) -> bool:
        """Become the owner of a shard, if its lease still is the one expected.

        True if nobody has the lease and `expected` is None, or if it has the epoch of `expected` and the new epoch is
        greater. The counter plays no part: a living owner can be replaced too.
        """

    @abstractmethod
    def renew(self, shard: str, epoch: Epoch) -> bool:
        """Raise the counter; False if the lease is no longer held at this epoch."""

    @abstractmethod
    def record_processes(self, shard: str, epoch: Epoch, processes: Sequence[OwnedProcess]) -> bool:
        """Replace the list of the owner's processes; False if the lease is no longer held at this epoch."""

    @abstractmethod
    def release(self, shard: str, epoch: Epoch) -> bool:
        """Remove the lease; False if it is no longer held at this epoch."""

    @abstractmethod
    def lease(self, shard: str) -> Lease | None:
        """The lease of one shard."""

    @abstractmethod
    def leases(self) -> list[Lease]:
        """All leases in order of shard."""
