"""Dead workers' work back in the queue at once.

What a worker process imports: `Heartbeater`, or `SyncHeartbeater` where there is no event loop, says that it lives;
`events` hears what was given back; `Access` is how both log in to NATS. `liveness.testing` is for the tests of a
worker.
"""

from liveness.access import Access
from liveness.client import DrainingError, Event, Heartbeater, LostError, SyncHeartbeater, events, make_reader
from liveness.eventdata import TaskReclaimed, WorkerEnded, WorkerRecovered, WorkflowReclaimed, WorkReclaimed

__version__ = "0.1.0"

__all__ = [
    "Access",
    "DrainingError",
    "Event",
    "Heartbeater",
    "LostError",
    "SyncHeartbeater",
    "TaskReclaimed",
    "WorkReclaimed",
    "WorkerEnded",
    "WorkerRecovered",
    "WorkflowReclaimed",
    "__version__",
    "events",
    "make_reader",
]
