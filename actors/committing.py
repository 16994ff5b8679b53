"""The scheduler's way to the store: one thread, one batch after the other, until every job has a verdict."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from comagent.commits import job_commit
from comagent.errors import StoreError
from comagent.events import Change
from comagent.protocol import Epoch
from comagent.store.base import Committed, JobCommit, JobRow, Stale, Store, Verdict

RETRY_S = 0.25

_Answer = TypeVar("_Answer")


class Committer:
    """Commits what jobs add, for one shard. What blocks runs in a thread of its own."""

    def __init__(self, store: Store, shard: str):
        self._store = store
        self._shard = shard
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._seqs: dict[str, int] = {}
        self.batch = 0
        """Number of the last batch."""

    async def call(self, work: Callable[[], _Answer]) -> _Answer:
        """Something else that the store is to do, in turn with the commits."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def take_over(self, epoch: Epoch) -> list[str]:
        """The jobs of the shard that have not ended, from now on at `epoch`."""
        taken = await self.call(lambda: self._store.take_over([self._shard], to=self._shard, epoch=epoch))
        self.batch = await self.call(lambda: self._store.last_batch(self._shard))
        return taken

    def knows(self, job_id: str) -> bool:
        return job_id in self._seqs

    def know(self, job_id: str, seq: int) -> None:
        """Where a job stands: what follows begins there."""
        self._seqs[job_id] = seq

    def forget(self, job_id: str) -> None:
        self._seqs.pop(job_id, None)

    async def commit(
        self,
        changes: Sequence[Change],
        epoch: Epoch,
        *,
        admits: dict[str, JobRow],
        on_error: Callable[[StoreError], Awaitable[bool]],
    ) -> dict[str, Verdict]:
        """Commits until every job has a verdict. An error says nothing about what was stored: the sequence does.

        `on_error` is asked after each error whether to go on; it takes those out of `admits` that gave up meanwhile.
        """
        at_ms = int(time.time() * 1000)
        verdicts: dict[str, Verdict] = {}
        commits: list[JobCommit] = []

        def write() -> list[Verdict]:
            if not commits:
                for change in changes:
                    admit = admits.get(change.job.job_id)
                    commits.append(job_commit(change, epoch=epoch, admit=admit, at_ms=at_ms))
            return self._store.commit(self._shard, self.batch, commits)

        while True:
            self.batch += 1
            try:
                answered = await self.call(write)
                verdicts.update((commit.job_id, verdict) for commit, verdict in zip(commits, answered, strict=True))
                break
            except StoreError as error:
                await asyncio.sleep(RETRY_S)
                if not await on_error(error):
                    verdicts.update((commit.job_id, Stale()) for commit in commits)
                    break
            commits = [commit for commit in commits if not await self._settled(commit, admits, verdicts)]
            if not commits:
                break
        for job_id, verdict in verdicts.items():
            if isinstance(verdict, Committed):
                self._seqs[job_id] = verdict.seq
        return verdicts

    async def _settled(self, commit: JobCommit, admits: dict[str, JobRow], verdicts: dict[str, Verdict]) -> bool:
        """Whether it is known after an error what became of a commit, or nobody wants it any more."""
        job_id = commit.job_id
        try:
            seq = await self.call(lambda: self._store.seq(job_id))
        except StoreError:
            return False
        if seq == self._seqs.get(job_id, 0) + max(1, len(commit.outcomes) + len(commit.events)):
            verdicts[job_id] = Committed(seq)
        elif commit.admit is not None and job_id not in admits:
            verdicts[job_id] = Stale()
        else:
            return False
        return True
