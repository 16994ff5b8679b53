"""Runs that are gone: what they left unfinished, and what still runs of them."""

import contextlib
import os
import signal
import time
from collections.abc import Iterable

import psutil

from comagent.coordination import Coordination, Lease, LeaseWatch, OwnedProcess, boot_id, is_alive, is_stale_at_once
from comagent.coordination.runs import Runs
from comagent.store import Store

DRIVER = "driver"
"""Name, in a lease, of the process with which a run ends."""
POLL_S = 0.1
END_S = 5.0


def driver(lease: Lease) -> OwnedProcess | None:
    """The process that started the run; None if it is not known, or was started elsewhere."""
    if lease.owner.boot_id != boot_id():
        return None
    return next((process for process in lease.owner.processes if process.name == DRIVER), None)


def is_dead(lease: Lease) -> bool:
    """Whether the run is known to be gone without waiting, whatever is left of it."""
    started_by = driver(lease)
    return is_stale_at_once(lease) if started_by is None else not is_alive(started_by)


def is_known_alive(lease: Lease) -> bool:
    """Whether the process that started the run is seen to live."""
    started_by = driver(lease)
    return started_by is not None and is_alive(started_by)


def expired(coordination: Coordination, leases: Iterable[Lease], *, ttl_s: float) -> set[str]:
    """The shards of those leases that give no sign of life. Takes until each has given one, or `ttl_s` at most."""
    watch = LeaseWatch(ttl_s)
    waiting = {lease.shard: lease for lease in leases}
    gone: set[str] = set()
    while waiting:
        for shard, seen in list(waiting.items()):
            lease = coordination.lease(shard)
            if lease is None or watch.observe(lease, time.monotonic()):
                gone.add(shard)
            elif (lease.epoch, lease.counter) == (seen.epoch, seen.counter):
                continue
            del waiting[shard]
        if waiting:
            time.sleep(POLL_S)
    return gone


def bury(coordination: Coordination, runs: Runs) -> None:
    """Ends what is left of dead runs, and removes their leases. Their jobs are then without an owner."""
    for run in runs.all():
        # A run that was killed while it ended has no lease any more.
        if not run.is_alive and coordination.lease(run.shard) is None:
            end_processes(run.left)
    for lease in coordination.leases():
        if is_dead(lease):
            if lease.owner.boot_id == boot_id():
                end_processes(lease.owner.processes)
            coordination.release(lease.shard, lease.epoch)


def orphans(store: Store, coordination: Coordination, *, beside: Iterable[str] = ()) -> list[str]:
    """Ids, in order, of unfinished jobs whose owner is known to be gone, or whose shard is among `beside`."""
    gone = set(beside)
    living = [lease.shard for lease in coordination.leases() if lease.shard not in gone and not is_dead(lease)]
    owned = set(store.unfinished(living))
    return [job_id for job_id in store.unfinished() if job_id not in owned]


def started_ms(process: OwnedProcess) -> float | None:
    """When the process was started, in milliseconds since 1970."""
    with contextlib.suppress(psutil.Error):
        return psutil.Process(process.pid).create_time() * 1000
    return None


def end_processes(processes: Iterable[OwnedProcess]) -> None:
    """Kills them, and waits until they are gone; never one that only has the same pid."""
    left = [process for process in processes if is_alive(process)]
    for process in left:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + END_S
    while any(map(is_alive, left)) and time.monotonic() < deadline:
        time.sleep(0.02)
