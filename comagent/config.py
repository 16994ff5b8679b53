"""Where things are and how much of the machine they may use: from the environment, read when it is asked for."""

import os
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def usable_cpus() -> int:
    """CPUs that this process may use."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:
        return max(1, os.cpu_count() or 1)


class Config(BaseSettings):
    """Settings of this process. Each is an environment variable of the same name with the prefix `COMAGENT_`."""

    model_config = SettingsConfigDict(env_prefix="COMAGENT_", frozen=True, extra="ignore", populate_by_name=True)

    home: Path = Field(default_factory=lambda: Path.home() / ".comagent")
    """Folder of embedded runs: store, documents, logs, outbox."""
    store: str = Field("", validation_alias="COMAGENT_STORE_URL")
    """SQLAlchemy URL of the store; an SQLite file in `home` if it is empty."""
    address: str = ""
    """Where clients connect to; an embedded run if it is empty."""
    cpus: int = Field(default_factory=usable_cpus, ge=1, le=4096)
    """CPUs that an embedded Ray offers."""
    agents: int = Field(default_factory=usable_cpus, ge=1, le=1024)
    """Agents of an embedded run."""
    ref_edges: bool = False
    """Whether units may be sent before what they need has ended, to be started by object refs. Units that are sent when
    everything is committed are faster on one machine, because a unit takes along all that depends on nothing else."""
    lease_ttl_s: float = Field(3.0, gt=0.5)
    """Seconds after which an owner that gives no sign of life is replaced."""

    @property
    def store_url(self) -> str:
        return self.store or f"sqlite:///{self.home.absolute() / 'store.db'}"

    @property
    def coordination_path(self) -> Path:
        return self.home.absolute() / "coordination.db"

    @property
    def documents(self) -> Path:
        return self.home.absolute() / "documents"

    @property
    def runs(self) -> Path:
        """What is known of embedded runs, also of those that are over."""
        return self.home.absolute() / "runs"
