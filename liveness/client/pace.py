"""How often a worker beats, and how long before the end of its ttl it stops. Pure: durations, in seconds."""

import math
from typing import Final, Self

import msgspec

# Four beats may be lost before a lease lapses, and three before the worker considers itself lost.
BEATS_IN_A_TTL: Final = 5
# For a worker that states no ttl: six in the service's default of 60 s.
DEFAULT_INTERVAL: Final = 10.0
# The service's default `heartbeat_timeout`. It holds for a worker that states no ttl until the service says its own.
DEFAULT_TTL: Final = 60.0
# What supervisors usually grant a process between SIGTERM and SIGKILL: whoever needs longer to stop has to say so.
MOST_MARGIN: Final = 10.0
# However short a ttl the service grants, beats are no flood.
LEAST_INTERVAL: Final = 0.02


class Pace(msgspec.Struct, frozen=True):
    """The durations in force, and what was stated of them."""

    ttl: float
    interval: float
    margin: float
    stated_ttl: float | None
    stated_interval: float | None
    stated_margin: float | None

    @classmethod
    def stated(cls, ttl: float | None, interval: float | None, margin: float | None) -> Self:
        """Return the pace of a worker that states these; raises ValueError for what cannot be.

        The interval is a fifth of the ttl by default, or 10. The margin is as long: what a worker has to stop in costs
        it one beat of the four that may be lost, but no more than 10 s, nor than half of what an interval leaves of
        the ttl.
        """
        for name, value in (("ttl", ttl), ("interval", interval), ("margin", margin)):
            if value is not None and not (math.isfinite(value) and (value > 0 or (name == "margin" and value == 0))):
                raise ValueError(f"{name} ({value:g}) has to be a number of seconds {_bounds(name, ttl)}")
        if ttl is not None and interval is not None and interval >= ttl:
            raise ValueError(
                f"interval ({interval:g}) is not below the ttl ({ttl:g}), so the lease would lapse between two beats: "
                f"lower interval, best to {ttl / BEATS_IN_A_TTL:g}, or raise ttl"
            )
        beats = interval or (DEFAULT_INTERVAL if ttl is None else ttl / BEATS_IN_A_TTL)
        in_force = ttl or DEFAULT_TTL
        if in_force <= beats:
            # Whoever beats so seldom and states no ttl knows of a longer heartbeat_timeout.
            in_force = 2 * beats
        if margin is not None and beats >= in_force - margin:
            known = f"{ttl:g}" if ttl is not None else f"none stated, so {in_force:g}"
            raise ValueError(
                f"margin ({margin:g}) leaves no room for an interval ({beats:g}) in the ttl ({known}), so the worker "
                "would be lost between two beats: lower margin or interval, or raise ttl"
            )
        return cls(in_force, beats, _margin(in_force, beats, margin), ttl, interval, margin)

    def granted(self, ttl: float) -> Self:
        """Return the pace once the service has said which `ttl` it grants: the shorter one counts, if one was stated.

        Where the interval would be too long for it, a fifth of it counts, and where the margin would, the default one.
        """
        in_force = ttl if self.stated_ttl is None else min(ttl, self.stated_ttl)
        fifth = max(in_force / BEATS_IN_A_TTL, LEAST_INTERVAL)
        interval = self.interval
        if self.stated_interval is None or interval >= in_force:
            interval = min(interval, fifth)
        margin = self.stated_margin
        if margin is not None and interval >= in_force - margin:
            margin = None
        return msgspec.structs.replace(
            self, ttl=in_force, interval=interval, margin=_margin(in_force, interval, margin)
        )

    @property
    def window(self) -> float:
        """How long after a beat the worker may still rely on it."""
        return self.ttl - self.margin


def _margin(ttl: float, interval: float, stated: float | None) -> float:
    return min(ttl / BEATS_IN_A_TTL, MOST_MARGIN, (ttl - interval) / 2) if stated is None else stated


def _bounds(name: str, ttl: float | None) -> str:
    if name == "interval":
        return f"above 0 and below the ttl ({'none stated' if ttl is None else f'{ttl:g}'}): raise interval"
    return "above 0" if name == "ttl" else "from 0 on"
