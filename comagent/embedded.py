"""A run of its own: a local Ray, one shard, all actors; everything ends with the process that made it.

The store and the coordination are files in a folder, `COMAGENT_HOME`. Any number of runs may share it: each is a shard
with a lease of its own, and touches its own jobs only.
"""

import contextlib
import os
import signal
import threading
import time
from dataclasses import asdict
from typing import Any

import psutil
import ray
from ray._private import ray_constants
from ray.exceptions import RayError

from comagent.actors.names import NAMESPACE, agent_name, options, scheduler_name, supervisor_name
from comagent.actors.scheduler import SchedulerActor
from comagent.actors.settings import Settings, open_coordination, open_store
from comagent.actors.subtask import SubTaskAgentActor
from comagent.actors.supervisor import SupervisorActor
from comagent.client import Client
from comagent.config import Config
from comagent.coordination.base import Lease, OwnedProcess
from comagent.coordination.processes import boot_id, process_start_time
from comagent.coordination.runs import Run, Runs
from comagent.errors import CannotConnectError
from comagent.ids import uuid7
from comagent.tools import is_loading

OBJECT_STORE_BYTES = 256 * 1024 * 1024
START_S = 120.0
END_S = 5.0


class Embedded:
    """A local Ray with a scheduler, a supervisor and a pool of agents. Use it as a context manager, or `close` it."""

    def __init__(self, config: Config):
        self.shard = f"run-{uuid7()}"
        self.settings = Settings(
            shard=self.shard,
            region="local",
            store_url=config.store_url,
            coordination_path=str(config.coordination_path),
            documents=str(config.documents),
            agents=config.agents,
            owner=(os.getpid(), process_start_time(os.getpid()) or 0.0),
            ref_edges=config.ref_edges,
            ttl_s=config.lease_ttl_s,
        )
        config.home.mkdir(parents=True, exist_ok=True)
        # Opened before Ray is started: a store that cannot be used is a quick answer then.
        self.store = open_store(self.settings)
        self.store.open()
        self.coordination = open_coordination(self.settings)
        self.coordination.open()
        self._runs = Runs(config.runs)
        self._session = ""
        self._started_ms = int(time.time() * 1000)
        self._processes: list[OwnedProcess] = []
        self._closed = False
        self._closing = threading.Event()
        self._not_ours = {child.pid for child in psutil.Process().children()}
        """Processes that the program around us had started before: they are its own business."""
        self._daemons: list[psutil.Process] | None = None
        try:
            self._start(config)
        except BaseException:
            self.close()
            raise

    def _start(self, config: Config) -> None:
        if ray.is_initialized():
            remedy = "Use one connection for all jobs, or call ray.shutdown() first."
            raise CannotConnectError("a Ray of its own", "this process is connected to a Ray already", remedy)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
        # Under `uv run` Ray would copy the working folder and make a new environment for each worker. Ours are children
        # of this process and use its environment. Ray reads the variable for it when it is imported: maybe long ago.
        ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False
        try:
            context: Any = ray.init(
                address="local",
                num_cpus=config.cpus,
                namespace=NAMESPACE,
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
                object_store_memory=OBJECT_STORE_BYTES,
            )
        except Exception as error:
            raise CannotConnectError("a local Ray", str(error), "Look into /tmp/ray/session_latest/logs.") from error
        # Ray tells of dead actors on standard output, which belongs to results; none of its settings turns that off.
        ray._private.worker._worker_logs_enabled = False
        self._session = context.address_info["session_dir"]
        self._remember_processes()
        self._record_run()
        supervisor = supervisor_name(self.shard)
        scheduler = scheduler_name(self.shard, 1)
        settings = asdict(self.settings)
        supervisor_actor = SupervisorActor.options(**options(supervisor, max_restarts=-1)).remote(supervisor, settings)
        scheduler_actor = SchedulerActor.options(**options(scheduler)).remote(scheduler, settings)
        agents = [agent_name(self.shard, number + 1) for number in range(config.agents)]
        handles = [
            SubTaskAgentActor.options(**options(name)).remote(name, self.settings.documents, self.settings.owner)
            for name in agents
        ]
        try:
            epoch = ray.get(scheduler_actor.open.remote(supervisor, agents), timeout=START_S)
            ray.get(supervisor_actor.open.remote(), timeout=START_S)
        except RayError as error:
            raise CannotConnectError(
                "the actors of a local run", str(error), "Look into /tmp/ray/session_latest/logs."
            ) from error
        self._remember_processes()
        self._record_processes(epoch)
        self._record_run()
        del handles
        threading.Thread(target=self._poll, args=(supervisor_actor,), name="supervisor", daemon=True).start()

    def _poll(self, supervisor: Any) -> None:
        """A supervisor that Ray has started anew opens when it is called: then it replaces a scheduler that is gone."""
        while not self._closing.wait(self.settings.beat_s):
            with contextlib.suppress(Exception):
                ray.get(supervisor.beat.remote(), timeout=self.settings.ttl_s)

    def lease(self) -> Lease | None:
        """Who owns this run's shard: where its scheduler and supervisor are found."""
        return self.coordination.lease(self.shard)

    def _record_processes(self, epoch: tuple[int, int]) -> None:
        """Writes them into the lease, after the driver and scheduler that it names: what a killed run leaves behind."""
        lease = self.lease()
        named = lease.owner.processes if lease is not None else ()
        pids = {process.pid for process in named}
        others = [process for process in self._processes if process.pid not in pids]
        self.coordination.record_processes(self.shard, epoch, [*named, *others])

    def _record_run(self) -> None:
        """Writes down where the logs are, for whoever looks for them when the lease is gone."""
        assert self.settings.owner is not None
        processes = (OwnedProcess(*self.settings.owner, "driver"), *self._processes)
        ended_ms = int(time.time() * 1000) if self._closed else None
        with contextlib.suppress(OSError):
            self._runs.write(Run(self.shard, self._session, self._started_ms, boot_id(), processes, ended_ms))

    def _remember_processes(self) -> None:
        """What this run has started by now: Ray's own processes, and below them the actors."""
        if self._daemons is None:
            self._daemons = [child for child in psutil.Process().children() if child.pid not in self._not_ours]
        known = {process.pid for process in self._processes}
        for daemon in self._daemons:
            with contextlib.suppress(psutil.Error):
                for process in (daemon, *daemon.children(recursive=True)):
                    start = process_start_time(process.pid)
                    if process.pid not in known and start is not None:
                        self._processes.append(OwnedProcess(process.pid, start, process.name()))

    def close(self) -> None:
        """Ends everything this run has started. Jobs that have not ended stay resumable."""
        if self._closed:
            return
        self._closed = True
        self._closing.set()
        lease = None
        if ray.is_initialized():
            with contextlib.suppress(Exception):
                self._remember_processes()
                lease = self.lease()
                if lease is not None:
                    supervisor = ray.get_actor(lease.supervisor, NAMESPACE)
                    ray.get(supervisor.close.remote(), timeout=END_S)
            ray.shutdown()
        elif self._daemons is None:
            # Ray was interrupted while it started: what there is of it has to be found now.
            self._remember_processes()
        _end(self._processes)
        if self._session:
            self._record_run()
        if lease is not None:
            with contextlib.suppress(Exception):
                self.coordination.release(self.shard, lease.epoch)
        self.coordination.close()
        self.store.close()

    def __enter__(self) -> "Embedded":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _end(processes: list[OwnedProcess]) -> None:
    """Waits for processes to go, and ends those that do not; never one that only has the same pid."""
    deadline = time.monotonic() + END_S
    left = processes
    while left and time.monotonic() < deadline:
        left = [process for process in left if process_start_time(process.pid) == process.start_time and _runs(process)]
        if left:
            time.sleep(0.02)
    for process in left:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, signal.SIGKILL)


def _runs(process: OwnedProcess) -> bool:
    try:
        return psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def connect(address: str = "", *, config: Config | None = None) -> Client:
    """A client of a run of its own: a local Ray with all actors, which ends when the client is closed.

    Raises `CannotConnectError` if Ray cannot be started, `StoreError` if the store cannot be used.
    """
    config = config or Config()
    if is_loading():
        problem = "a file with tools connects while it is loaded for a job"
        raise CannotConnectError("a run", problem, 'Put what runs jobs under `if __name__ == "__main__":`.')
    address = address or config.address
    if address:
        raise CannotConnectError(address, "only embedded runs are available", "Leave the address out.")
    embedded = Embedded(config)
    return Client(embedded.lease, embedded.close)
