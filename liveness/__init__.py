"""Dead workers' work back in the queue at once.

What a worker process imports: `Heartbeater` says that it lives; `events` hears what was given back.
"""

from liveness.client import DrainingError, Event, Heartbeater, LostError, events
from liveness.messages import TaskReclaimed, WorkerEnded, WorkerRecovered, WorkflowReclaimed, WorkReclaimed

__version__ = "0.1.0"

__all__ = [
    "DrainingError",
    "Event",
    "Heartbeater",
    "LostError",
    "TaskReclaimed",
    "WorkReclaimed",
    "WorkerEnded",
    "WorkerRecovered",
    "WorkflowReclaimed",
    "__version__",
    "events",
]
