"""What ComAgent needs on this machine, checked piece by piece. Nothing is changed, and a missing Ray stops nothing."""

import importlib
import importlib.util
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import NamedTuple

import psutil
import typer

from comagent.cli.home import is_empty, opened, read_config
from comagent.cli.leftovers import leftovers
from comagent.cli.orphans import orphans
from comagent.cli.screen import count
from comagent.config import Config
from comagent.errors import ComAgentError
from comagent.spec import parse_duration

GIB = 1024**3
MIB = 1024**2
OBJECT_STORE_BYTES = 256 * MIB
"""What an embedded run asks for."""
RAY_FULL_PERCENT = 95.0
"""A disk that is fuller is full to Ray."""
FILES = 1024
OLD = "1d"


class Finding(NamedTuple):
    """What came of one check."""

    what: str
    status: str
    """`ok`, `warning` or `broken`."""
    told: str
    remedy: str = ""
    """What to do about it."""


Findings = Iterator[Finding]


def checkup() -> Findings:
    """All findings, in an order in which a person would look for a cause."""
    yield from _python()
    yield from _packages()
    yield from _ray()
    yield from _uv()
    yield from _compiled()
    try:
        config = read_config()
    except typer.BadParameter as error:
        yield Finding("settings", "broken", error.message)
        return
    yield from _settings(config)
    yield from _home(config)
    yield from _store(config)
    yield from _disks(config)
    yield from _shared_memory()
    yield from _memory()
    yield from _files()
    yield from _loopback()


def _python() -> Findings:
    yield Finding("Python", "ok", f"{sys.version.split()[0]}, {sys.executable}")


def _packages() -> Findings:
    """Those that ComAgent declares, Ray apart."""
    try:
        declared = [re.split(r"[^\w-]", line)[0] for line in requires("comagent") or [] if "extra ==" not in line]
        told = f"{version('comagent')}, {Path(__file__).parents[1]}"
    except PackageNotFoundError:
        remedy = "Install it: `uv sync` in a clone, or `pip install` its wheel."
        yield Finding("ComAgent", "warning", f"not installed, but found at {Path(__file__).parents[1]}", remedy)
        return
    missing = []
    for name in declared:
        try:
            version(name)
        except PackageNotFoundError:
            missing.append(name)
    missing = [name for name in missing if name != "ray"]
    if missing:
        yield Finding("ComAgent", "broken", f"{told}; it lacks {', '.join(missing)}", "Install it anew: `uv sync`.")
    else:
        yield Finding("ComAgent", "ok", told)


def _ray() -> Findings:
    remedy = "Install ComAgent anew, which brings Ray: `uv sync` in a clone."
    try:
        ray = importlib.import_module("ray")
    except Exception as error:  # noqa: BLE001 - whatever a damaged installation raises
        yield Finding("Ray", "broken", f"it cannot be imported: {type(error).__name__}: {error}", remedy)
    else:
        yield Finding("Ray", "ok", f"{ray.__version__}, {ray.__path__[0]}")


def _uv() -> Findings:
    path = shutil.which("uv")
    if path is None:
        remedy = "Only work in a clone needs it: `pip install uv`."
        yield Finding("uv", "ok", f"not on PATH. {remedy}")
        return
    asked = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=False)
    yield Finding("uv", "ok", f"{asked.stdout.strip().removeprefix('uv ') or 'of unknown version'}, {path}")


def _compiled() -> Findings:
    """Ray starts a Python process per actor, which compiles whatever has not been compiled."""
    spec = importlib.util.find_spec("ray")
    if spec is None or spec.origin is None:
        return
    folder = Path(spec.origin).parent
    sources = [*folder.glob("*.py"), *folder.glob("_private/*.py")]
    compiled = sum(Path(importlib.util.cache_from_source(str(source))).exists() for source in sources)
    told = f"{compiled} of {len(sources)} modules of Ray are compiled"
    if compiled * 2 < len(sources):
        remedy = f"Every start takes seconds longer. Compile them once: `{sys.executable} -m compileall -q {folder}`."
        yield Finding("bytecode", "warning", told, remedy)
    else:
        yield Finding("bytecode", "ok", told)


def _settings(config: Config) -> Findings:
    names = sorted(name for name in os.environ if name.startswith("COMAGENT_"))
    told = f"{count(config.cpus, 'CPU')}, {count(config.agents, 'agent')}"
    yield Finding("settings", "ok", f"{told}; set: {', '.join(names)}" if names else f"{told}; none is set")


def _home(config: Config) -> Findings:
    folder = _existing(config.home)
    remedy = "Let this user write the folder, or set COMAGENT_HOME to another one."
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"ComAgent")
    except OSError as error:
        yield Finding("home", "broken", f"{folder} cannot be written: {error.strerror}", remedy)
        return
    yield Finding("home", "ok", str(config.home) if folder == config.home else f"{config.home}, made when needed")


def _store(config: Config) -> Findings:
    """The store, the coordination beside it, and what earlier runs have left in both."""
    if is_empty(config):
        yield Finding("store", "ok", "empty, made when needed")
        return
    try:
        from comagent.store.schema import SQLITE_FORMAT

        with opened(config) as (store, coordination):
            yield Finding("store", "ok", f"{config.store_url}, schema {SQLITE_FORMAT.version}")
            leases = coordination.leases()
            yield Finding("coordination", "ok", f"{config.coordination_path}, {count(len(leases), 'lease')}")
            left = list(leftovers(config, coordination, older_than_s=parse_duration(OLD)))
            unfinished = orphans(store, coordination)
    except ComAgentError as error:
        yield Finding("store", "broken", str(error))
        return
    if left:
        named = "; ".join(leftover.what for leftover in left[:3]) + ("; …" if len(left) > 3 else "")
        remedy = "`comagent cleanup` ends and removes that."
        yield Finding("earlier runs", "warning", f"{count(len(left), 'thing')} left behind: {named}", remedy)
    else:
        yield Finding("earlier runs", "ok", "nothing left behind")
    if unfinished:
        remedy = "`comagent resume --all` goes on."
        yield Finding("jobs", "warning", f"{count(len(unfinished), 'unfinished job')} that nobody runs", remedy)


def _disks(config: Config) -> Findings:
    places = {
        "disk of home": _existing(config.home),
        "disk of Ray": _existing(Path(os.environ.get("RAY_TMPDIR", "/tmp"))),
    }
    for what, folder in places.items():
        usage = psutil.disk_usage(str(folder))
        told = f"{_size(usage.free)} free at {folder}, {usage.percent:.0f} % in use"
        if usage.free < 100 * MIB:
            yield Finding(what, "broken", told, "Free some space: nothing can be stored without.")
        elif usage.free < GIB or usage.percent > RAY_FULL_PERCENT:
            yield Finding(what, "warning", told, "Free some space: Ray stores no large values on a disk so full.")
        else:
            yield Finding(what, "ok", told)


def _shared_memory() -> Findings:
    shm = Path("/dev/shm")
    if not shm.is_dir():
        return
    usage = psutil.disk_usage(str(shm))
    told = f"{_size(usage.free)} of {_size(usage.total)} free at {shm}"
    if usage.free < OBJECT_STORE_BYTES:
        remedy = "Ray takes the slower /tmp for large values. In a container, start that with `--shm-size=1g`."
        yield Finding("shared memory", "warning", told, remedy)
    else:
        yield Finding("shared memory", "ok", told)


def _memory() -> Findings:
    memory = psutil.virtual_memory()
    told = f"{_size(memory.available)} of {_size(memory.total)} available"
    if memory.available < GIB:
        remedy = "End something, or use fewer agents: COMAGENT_AGENTS=1. Each takes some 100 MiB."
        yield Finding("memory", "warning", told, remedy)
    else:
        yield Finding("memory", "ok", told)


def _files() -> Findings:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES:
        remedy = f"Raise the limit: `ulimit -n {FILES if hard == resource.RLIM_INFINITY else min(hard, 65_536)}`."
        yield Finding("open files", "warning", f"at most {soft:,} per process", remedy)
    else:
        told = "no limit" if soft == resource.RLIM_INFINITY else f"at most {soft:,} per process"
        yield Finding("open files", "ok", told)


def _loopback() -> Findings:
    """Ray's processes talk to each other over TCP, at ports that the system chooses."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port), timeout=5):
                yield Finding("network", "ok", "this machine can call itself at 127.0.0.1")
    except OSError as error:
        remedy = "Ray's processes talk to each other there. See whether a firewall or a sandbox forbids it."
        yield Finding("network", "broken", f"this machine cannot call itself at 127.0.0.1: {error.strerror}", remedy)


def _existing(path: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())


def _size(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / MIB:.0f} MiB"
