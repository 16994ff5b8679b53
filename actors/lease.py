"""A scheduler's hold on its shard."""

import asyncio
import time

from comagent.actors.settings import Settings
from comagent.coordination.base import Coordination, Lease, OwnedProcess, Owner
from comagent.coordination.processes import boot_id, this_process
from comagent.errors import StaleEpochError, StoreError
from comagent.protocol import Epoch


class LeaseKeeper:
    """Takes, renews and gives back the lease of one shard for one scheduler."""

    def __init__(self, coordination: Coordination, settings: Settings, scheduler: str, supervisor: str):
        self._coordination = coordination
        self._settings = settings
        self._scheduler = scheduler
        self._supervisor = supervisor
        self._epoch: Epoch = (0, 0)
        self._renewed = 0.0
        self.lost = False
        """Somebody else has the shard: for good."""

    async def take(self) -> Epoch:
        """A fresh epoch and the shard with it. Raises `StaleEpochError` if somebody else was faster."""
        return await asyncio.to_thread(self._take)

    def _take(self) -> Epoch:
        coordination, shard = self._coordination, self._settings.shard
        expected = coordination.lease(shard)
        epoch = coordination.next_epoch(self._settings.region)
        processes = expected.owner.processes if expected is not None else ()
        if self._settings.owner is not None and not processes:
            processes = (OwnedProcess(*self._settings.owner, "driver"),)
        owner = Owner(boot_id(), (*processes, this_process("scheduler")))
        lease = Lease(shard, epoch, self._scheduler, self._supervisor, 0, owner)
        if not coordination.claim(lease, expected=expected):
            raise StaleEpochError(shard, epoch)
        self._epoch = epoch
        self._renewed = time.monotonic()
        return epoch

    async def renew(self) -> bool:
        """Whether the lease is still held; if the service can't be reached, as far as is known."""
        began = time.monotonic()
        try:
            held = await asyncio.to_thread(self._coordination.renew, self._settings.shard, self._epoch)
        except StoreError:
            return self.fresh()
        if held:
            self._renewed = began
        else:
            self.lost = True
        return held

    def fresh(self) -> bool:
        """Whether the last renewal is recent enough to act on: a paused scheduler must ask before it goes on."""
        return not self.lost and time.monotonic() - self._renewed < self._settings.ttl_s * 2 / 3

    async def release(self) -> None:
        await asyncio.to_thread(self._coordination.release, self._settings.shard, self._epoch)
