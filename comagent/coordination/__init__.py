"""Who owns what at the moment: epochs, leases, and the signs of life behind them."""

from comagent.coordination.base import Coordination, Epoch, Lease, OwnedProcess, Owner
from comagent.coordination.embedded import EmbeddedCoordination
from comagent.coordination.processes import boot_id, is_alive, process_start_time, this_process
from comagent.coordination.watch import LeaseWatch, is_stale_at_once

__all__ = [
    "Coordination",
    "EmbeddedCoordination",
    "Epoch",
    "Lease",
    "LeaseWatch",
    "OwnedProcess",
    "Owner",
    "boot_id",
    "is_alive",
    "is_stale_at_once",
    "process_start_time",
    "this_process",
]
