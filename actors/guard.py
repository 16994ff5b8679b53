"""An embedded run's actors end with the process that started them, however that ended."""

import os
import threading
import time

from comagent.coordination.base import OwnedProcess
from comagent.coordination.processes import is_alive

BEAT_S = 0.5


def end_with(owner: tuple[int, float] | None) -> None:
    """Ends this process soon after `owner` (pid, start time) is gone; without an owner, does nothing."""
    if owner is None:
        return
    process = OwnedProcess(*owner, "driver")

    def watch() -> None:
        while is_alive(process):
            time.sleep(BEAT_S)
        os._exit(0)

    threading.Thread(target=watch, name="guard", daemon=True).start()
