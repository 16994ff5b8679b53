"""Tools that measure the machine on which they run. Percentages are 0 to 100, with one decimal.

Sizes are in GiB with one decimal: for people, and for comparisons in expressions. In a container the figures are
those that the kernel shows there, which are mostly those of the whole machine.
"""

import contextlib
import os
import platform
import time
from pathlib import Path
from typing import Literal

import psutil
from typing_extensions import TypedDict

from comagent.tools.base import tool

__all__ = ["cpu", "disk", "host", "memory", "network", "processes"]

_GIB = 2**30


class Cpu(TypedDict):
    percent: float
    """Of all cores together."""
    cores: int
    load: list[float]
    """Processes that run or wait to run, averaged over 1, 5 and 15 minutes; divide by `cores` to judge it."""


class Memory(TypedDict):
    percent: float
    """What could not be given to a new process, of all there is."""
    total_gib: float
    available_gib: float
    swap_percent: float


class Disk(TypedDict):
    path: str
    percent: float
    """As `df` counts: of what unprivileged users can have."""
    total_gib: float
    used_gib: float
    free_gib: float


class ProcessRow(TypedDict):
    pid: int
    name: str
    memory_percent: float
    cpu_percent: float
    """Of one core; more than 100 where a process keeps several busy."""


class Processes(TypedDict):
    count: int
    """All processes that are visible."""
    top: list[ProcessRow]
    """The one that uses most first."""


class Network(TypedDict):
    received_gib: float
    """Since the machine started, over all interfaces, as is `sent_gib`."""
    sent_gib: float
    errors: int
    dropped: int
    interfaces: list[str]
    """Those that are up."""


class Host(TypedDict):
    name: str
    system: str
    uptime_s: int
    time: str
    """Local time with its offset, ISO 8601."""


@tool(name="system.cpu", kind="thread", effects="none")
def cpu(interval_s: float = 0.2) -> Cpu:
    """How busy the processors are, measured over an interval during which the call waits."""
    if interval_s <= 0:
        raise ValueError(f"interval_s must be more than 0, not {interval_s:g}")
    percent = psutil.cpu_percent(interval=interval_s)
    return {"percent": round(percent, 1), "cores": os.cpu_count() or 1, "load": [round(x, 2) for x in os.getloadavg()]}


@tool(name="system.memory", kind="inline", cost="cheap", effects="none")
def memory() -> Memory:
    """How much memory is in use."""
    virtual = psutil.virtual_memory()
    return {
        "percent": round(virtual.percent, 1),
        "total_gib": _gib(virtual.total),
        "available_gib": _gib(virtual.available),
        "swap_percent": round(psutil.swap_memory().percent, 1),
    }


@tool(name="system.disk", kind="thread", cost="cheap", effects="none")
def disk(path: str = "/") -> Disk:
    """How full the file system is on which a path lies."""
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no {path} on this machine: name a path that exists")
    usage = psutil.disk_usage(path)
    return {
        "path": path,
        "percent": round(usage.percent, 1),
        "total_gib": _gib(usage.total),
        "used_gib": _gib(usage.used),
        "free_gib": _gib(usage.free),
    }


@tool(name="system.processes", kind="thread", effects="none")
def processes(limit: int = 5, by: Literal["memory", "cpu"] = "memory", interval_s: float = 0.2) -> Processes:
    """The processes that use most memory, or most processor time within an interval during which the call waits."""
    if limit < 0:
        raise ValueError(f"limit must not be negative, as {limit} is")
    seen = list(psutil.process_iter())
    if by == "cpu":
        _cpu_percents(seen)
        time.sleep(interval_s)
    key: Literal["memory_percent", "cpu_percent"] = "cpu_percent" if by == "cpu" else "memory_percent"
    # cpu_percent is of the time since the call before: 0 where there was none.
    rows = [row for process in seen if (row := _row(process)) is not None]
    return {"count": len(seen), "top": sorted(rows, key=lambda row: row[key], reverse=True)[:limit]}


@tool(name="system.network", kind="inline", cost="cheap", effects="none")
def network() -> Network:
    """What went over the network interfaces."""
    total = psutil.net_io_counters()
    up = sorted(name for name, stats in psutil.net_if_stats().items() if stats.isup)
    if total is None:  # a container without a network has no counters either
        return {"received_gib": 0.0, "sent_gib": 0.0, "errors": 0, "dropped": 0, "interfaces": up}
    return {
        "received_gib": _gib(total.bytes_recv),
        "sent_gib": _gib(total.bytes_sent),
        "errors": total.errin + total.errout,
        "dropped": total.dropin + total.dropout,
        "interfaces": up,
    }


@tool(name="system.host", kind="inline", cost="cheap", effects="none")
def host() -> Host:
    """Which machine this is, its time, and for how long it has been up."""
    return {
        "name": platform.node(),
        "system": f"{platform.system()} {platform.release()}",
        "uptime_s": int(time.time() - psutil.boot_time()),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _gib(size: int) -> float:
    return round(size / _GIB, 1)


def _row(process: psutil.Process) -> ProcessRow | None:
    try:
        with process.oneshot():
            return {
                "pid": process.pid,
                "name": process.name(),
                "memory_percent": round(process.memory_percent(), 1),
                "cpu_percent": round(process.cpu_percent(), 1),
            }
    except psutil.Error:
        return None  # it has ended meanwhile, or belongs to somebody else


def _cpu_percents(seen: list[psutil.Process]) -> None:
    for process in seen:
        with contextlib.suppress(psutil.Error):
            process.cpu_percent()
