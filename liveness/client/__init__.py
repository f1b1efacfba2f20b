"""The worker's side: `Heartbeater` says that a worker lives, `events` hears what was given back."""

from liveness.client.events import Event, events
from liveness.client.heartbeater import Heartbeater
from liveness.errors import DrainingError, LostError

__all__ = ["DrainingError", "Event", "Heartbeater", "LostError", "events"]
