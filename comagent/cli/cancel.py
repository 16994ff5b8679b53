"""`comagent cancel`"""

from comagent.cli.arguments import Job
from comagent.errors import ConflictError, UnknownJobError


def cancel(job: Job) -> None:
    """Say how a job is cancelled: one of `comagent run` or of a Python program only by that itself."""
    from comagent.cli.home import is_empty, opened, read_config
    from comagent.cli.orphans import driver, is_dead

    config = read_config()
    if is_empty(config):
        raise UnknownJobError(job)
    with opened(config) as (store, coordination):
        record = store.job(job)
        if record is None:
            raise UnknownJobError(job)
        if record.ended_ms is not None:
            status = record.status.replace("_", " ")
            raise ConflictError(job, f"it has ended already: {status}. There is nothing to cancel.")
        lease = coordination.lease(record.shard)
    if lease is None or is_dead(lease):
        resume = f"`comagent resume {job}` goes on with it; Ctrl-C cancels it then."
        raise ConflictError(job, f"its run is gone, and nothing of it runs. {resume}")
    process = driver(lease)
    where = "in another place" if process is None else f"in process {process.pid}"
    how = "" if process is None else f", or run `kill -INT {process.pid}`"
    raise ConflictError(job, f"it runs {where}, and only that can cancel it. Press Ctrl-C in its terminal{how}.")
