"""The worker's side: `Heartbeater` says that a worker lives, `events` hears what was given back."""

from liveness.client.events import Event, events
from liveness.client.heartbeater import Heartbeater

__all__ = ["Event", "Heartbeater", "events"]
