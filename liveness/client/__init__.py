"""The worker's side: `Heartbeater` says that a worker lives, `events` hears what was given back.

`SyncHeartbeater` is for a worker without an event loop.
"""

from liveness.client.events import Event, events, make_reader
from liveness.client.heartbeater import Heartbeater
from liveness.client.synchronous import SyncHeartbeater
from liveness.errors import DrainingError, LostError

__all__ = ["DrainingError", "Event", "Heartbeater", "LostError", "SyncHeartbeater", "events", "make_reader"]
