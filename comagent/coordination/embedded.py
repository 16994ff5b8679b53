"""Coordination between the processes of one machine, in an SQLite file of its own: beats don't queue behind commits."""

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from comagent.coordination.base import Coordination, Epoch, Lease, OwnedProcess, Owner
from comagent.errors import StoreError
from comagent.sqlite import Format, explained, open_file, transaction

_FORMAT = Format(
    name="ComAgent's coordination file",
    application_id=0x436F6D43,  # "ComC"
    create=(
        """CREATE TABLE epochs (
            region TEXT PRIMARY KEY,
            global_epoch INTEGER NOT NULL,
            regional_epoch INTEGER NOT NULL
        ) WITHOUT ROWID""",
        """CREATE TABLE leases (
            shard TEXT PRIMARY KEY,
            global_epoch INTEGER NOT NULL,
            regional_epoch INTEGER NOT NULL,
            scheduler TEXT NOT NULL,
            supervisor TEXT NOT NULL,
            counter INTEGER NOT NULL,
            boot_id TEXT NOT NULL,
            processes TEXT NOT NULL
        ) WITHOUT ROWID""",
    ),
)

_NEXT_EPOCH = """
    INSERT INTO epochs (region, global_epoch, regional_epoch) VALUES (?, 1, 1)
    ON CONFLICT (region) DO UPDATE SET regional_epoch = regional_epoch + 1
    RETURNING global_epoch, regional_epoch"""
_LEASES = """
    SELECT shard, global_epoch, regional_epoch, scheduler, supervisor, counter, boot_id, processes FROM leases"""
_CLAIM_FREE = """
    INSERT INTO leases (shard, global_epoch, regional_epoch, scheduler, supervisor, counter, boot_id, processes)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO NOTHING"""
_HELD = "WHERE shard = ? AND global_epoch = ? AND regional_epoch = ?"
_CLAIM_HELD = f"""
    UPDATE leases SET (global_epoch, regional_epoch, scheduler, supervisor, counter, boot_id, processes)
        = (?, ?, ?, ?, ?, ?, ?) {_HELD}"""
_RENEW = f"UPDATE leases SET counter = counter + 1 {_HELD}"
_RECORD_PROCESSES = f"UPDATE leases SET processes = ? {_HELD}"
_RELEASE = f"DELETE FROM leases {_HELD}"


class EmbeddedCoordination(Coordination):
    """Coordination in a file. It outlives `kill -9`; a machine that loses power loses nothing either."""

    def __init__(self, path: Path, *, timeout_s: float = 10.0) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        if self._connection is None:
            self._connection = open_file(self._path, _FORMAT, timeout_s=self._timeout_s)

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def next_epoch(self, region: str) -> Epoch:
        with self._using() as connection, transaction(connection):
            global_epoch, regional_epoch = connection.execute(_NEXT_EPOCH, (region,)).fetchone()
        return global_epoch, regional_epoch

    def claim(self, lease: Lease, *, expected: Lease | None) -> bool:
        state = (
            *lease.epoch,
            lease.scheduler,
            lease.supervisor,
            lease.counter,
            lease.owner.boot_id,
            json.dumps(lease.owner.processes),
        )
        if expected is None:
            return self._change(_CLAIM_FREE, (lease.shard, *state))
        return lease.epoch > expected.epoch and self._change(_CLAIM_HELD, (*state, lease.shard, *expected.epoch))

    def renew(self, shard: str, epoch: Epoch) -> bool:
        return self._change(_RENEW, (shard, *epoch))

    def record_processes(self, shard: str, epoch: Epoch, processes: Sequence[OwnedProcess]) -> bool:
        return self._change(_RECORD_PROCESSES, (json.dumps(processes), shard, *epoch))

    def release(self, shard: str, epoch: Epoch) -> bool:
        return self._change(_RELEASE, (shard, *epoch))

    def lease(self, shard: str) -> Lease | None:
        with self._using() as connection:
            row = connection.execute(f"{_LEASES} WHERE shard = ?", (shard,)).fetchone()
        return _lease(row) if row else None

    def leases(self) -> list[Lease]:
        with self._using() as connection:
            return [_lease(row) for row in connection.execute(f"{_LEASES} ORDER BY shard")]

    def _change(self, statement: str, parameters: tuple[Any, ...]) -> bool:
        with self._using() as connection, transaction(connection):
            return connection.execute(statement, parameters).rowcount == 1

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        with self._lock, explained(self._path):
            if self._connection is None:
                raise StoreError(f"{self._path} is closed", "Open the coordination before using it.")
            yield self._connection


def _lease(row: tuple[Any, ...]) -> Lease:
    shard, global_epoch, regional_epoch, scheduler, supervisor, counter, boot, processes = row
    owner = Owner(boot, tuple(OwnedProcess(*process) for process in json.loads(processes)))
    return Lease(shard, (global_epoch, regional_epoch), scheduler, supervisor, counter, owner)
