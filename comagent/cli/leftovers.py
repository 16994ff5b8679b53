"""What runs that are over have left behind: processes, leases, folders of logs, files that were never finished."""

import shutil
import stat
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from comagent.cli.orphans import end_processes, expired, is_dead, is_known_alive
from comagent.cli.screen import age
from comagent.config import Config
from comagent.coordination import Coordination, Lease, OwnedProcess, boot_id, is_alive
from comagent.coordination.runs import Run, Runs


class Leftover(NamedTuple):
    """Something that nobody needs any more."""

    what: str
    """`process 123 (raylet) of run-…`"""
    done: str
    """What becomes of it: `ended`, `removed`."""
    do: Callable[[], None]


def leftovers(config: Config, coordination: Coordination, *, older_than_s: float) -> Iterator[Leftover]:
    """Nothing of a run that is under way, or may be. Logs and unfinished files count when they are so old.

    Takes `config.lease_ttl_s` if there are leases of which only time can tell whether their owners live.
    """
    leases = coordination.leases()
    doubtful = [lease for lease in leases if not is_dead(lease) and not is_known_alive(lease)]
    gone = expired(coordination, doubtful, ttl_s=config.lease_ttl_s)
    dead = [lease for lease in leases if lease.shard in gone or is_dead(lease)]
    living = {lease.shard for lease in leases} - {lease.shard for lease in dead}
    runs = Runs(config.runs)
    over = [run for run in runs.all() if run.shard not in living and not run.is_alive]
    yield from _processes(dead, over)
    for lease in dead:
        yield _lease(coordination, lease)
    for run in over:
        yield from _traces(runs, run, older_than_s)
    for path in config.documents.glob("*/.new-*"):
        if (old := _age_s(path)) > older_than_s:
            unlink = partial(path.unlink, missing_ok=True)
            yield Leftover(f"{path}, never finished, {age(old)} old", "removed", unlink)


def _processes(dead: list[Lease], over: list[Run]) -> Iterator[Leftover]:
    recorded = [(lease.shard, lease.owner.boot_id, lease.owner.processes) for lease in dead]
    recorded += [(run.shard, run.boot_id, tuple(run.left)) for run in over]
    here = boot_id()
    seen: set[OwnedProcess] = set()
    for shard, boot, processes in recorded:
        for process in processes if boot == here else ():
            if process.pid not in {each.pid for each in seen} and is_alive(process):
                seen.add(process)
                what = f"process {process.pid} ({process.name}) of {shard}"
                yield Leftover(what, "ended", partial(end_processes, [process]))


def _lease(coordination: Coordination, lease: Lease) -> Leftover:
    return Leftover(f"lease of {lease.shard}", "removed", lambda: _release(coordination, lease))


def _release(coordination: Coordination, lease: Lease) -> None:
    coordination.release(lease.shard, lease.epoch)


def _traces(runs: Runs, run: Run, older_than_s: float) -> Iterator[Leftover]:
    """The folder of a run's Ray, and what says where that is."""
    folder = Path(run.session)
    if not folder.exists():
        yield Leftover(f"record of {run.shard}, whose logs are gone", "removed", lambda: runs.remove(run.shard))
    elif _is_session(folder, run) and (old := _age_s(folder / "logs")) > older_than_s:
        what = f"logs of {run.shard}, {age(old)} old: {folder}"
        yield Leftover(what, "removed", lambda: _remove(runs, run))


def _remove(runs: Runs, run: Run) -> None:
    shutil.rmtree(run.session, ignore_errors=True)
    if not Path(run.session).exists():
        runs.remove(run.shard)


def _is_session(folder: Path, run: Run) -> bool:
    """Whether it is what Ray made for this run, whatever the record of the run says by now."""
    mine = folder.name.startswith("session_") and folder.name.endswith(f"_{run.processes[0].pid}")
    return mine and folder.is_absolute() and stat.S_ISDIR(folder.lstat().st_mode) and (folder / "logs").is_dir()


def _age_s(path: Path) -> float:
    """Since the last change of the file, or of anything in the folder."""
    try:
        changed_s: float = max(each.lstat().st_mtime for each in (path, *(path.iterdir() if path.is_dir() else ())))
    except OSError:
        return 0.0
    return time.time() - changed_s
