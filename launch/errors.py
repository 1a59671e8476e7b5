"""How a run can end early, and what a worker's death looks like to the driver."""


class Stopped(Exception):
    """The run was asked to stop and has; what was finished is committed, `resume` goes on from there."""


class RunFailed(RuntimeError):
    """The run can't go on; the message says why and what to look at. What was committed stays."""


class StorageError(RunFailed):
    """The object store doesn't answer, or refuses. It ends the run where it stops the driver; a worker's is a loss."""


class WorkerLost(RuntimeError):
    """A worker died, overran its deadline and was killed, or couldn't deliver; its episode can be tried again."""
