"""A lease, and the line in which leases of one ttl stand. Pure.

A line is doubly linked and in the order of the leases' beats, so in the order of their deadlines: whoever lapses first
is at its front, and a renewal moves a lease to its end. The functions here keep the links; the rules are in `leases`.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec


class Ending(msgspec.Struct, gc=False):
    """Why and since when a lease waits for the verdict on its epoch."""

    reason: str
    at: float
    proof: bool
    # The life that ends. The lease's own fields may already speak of the next one.
    incarnation: str | None
    last_beat: float | None
    deadline: float
    ttl: float
    # What the evidence holds beyond the fields above: an exit code, an operator's word.
    details: Mapping[str, Any] | None = None
    # Since when the next life has been heard.
    reborn_at: float | None = None


class Lease(msgspec.Struct, gc=False, eq=False):
    """Our belief that `worker` lives."""

    # gc=False: a full collection over a million of them takes half a second, and the links are cut by hand.

    worker: str
    line: "Line"
    previous: "Lease"
    next: "Lease"
    incarnation: str | None
    epoch: int | None
    # The ttl that the worker last stated, else the default; the promise in force is `line.ttl`.
    stated: float
    # From when the promise counts; differs from `last_beat` for a restored lease, which has none.
    since: float
    last_beat: float | None
    ending: Ending | None = None

    @property
    def ttl(self) -> float:
        """Seconds of the promise in force."""
        return self.line.ttl


class Line(msgspec.Struct, gc=False, eq=False):
    """The leases whose promise in force is `ttl` seconds."""

    ttl: float
    # A sentinel: its `next` is the lease that lapses first, its `previous` the one that beat last.
    end: Lease


def rounded_ttl(ttl: float) -> float:
    """Return `ttl` (seconds, above 0) rounded up to three significant digits.

    It bounds the number of lines whatever ttls workers state, and a promise is never made shorter by it.
    """
    step = 10.0 ** (math.floor(math.log10(ttl)) - 2)
    # The subtrahend keeps 2.3 from becoming 2.31 by the last bit of a division.
    return round(math.ceil(ttl / step - 1e-9) * step, 9)


def unlinked(worker: str, line: Line) -> Lease:
    """Return a new lease of `worker` that stands in no line yet, with the ttl of `line`."""
    lease = Lease(
        worker=worker,
        line=line,
        # Linked to the sentinel in name only; the two next lines make it stand alone.
        previous=line.end,
        next=line.end,
        incarnation=None,
        epoch=None,
        stated=line.ttl,
        since=0.0,
        last_beat=None,
    )
    lease.previous = lease.next = lease
    return lease


def new_line(ttl: float) -> Line:
    """Return an empty line for `ttl` seconds."""
    nothing: Any = None
    end = Lease(
        worker="", line=nothing, previous=nothing, next=nothing, incarnation=None, epoch=None, stated=ttl, since=0.0,
        last_beat=None,
    )  # fmt: skip
    end.previous = end.next = end
    return Line(ttl=ttl, end=end)


def walk(line: Line) -> Iterator[Lease]:
    """Go through a line, from the lease that lapses first; the line must not change meanwhile."""
    lease = line.end.next
    while lease is not line.end:
        yield lease
        lease = lease.next


def cut(lease: Lease) -> None:
    """Take a lease out of its line; without effect on one that stands in none."""
    lease.previous.next = lease.next
    lease.next.previous = lease.previous
    lease.previous = lease.next = lease


def link(lease: Lease, since: float, line: Line) -> None:
    """Put a lease into `line`, its promise counting from `since`."""
    cut(lease)
    lease.line = line
    lease.since = since
    # Nearly always no step: only a beat that somebody else recorded can be older than the last one here.
    before = line.end.previous
    while before is not line.end and before.since > since:
        before = before.previous
    following = before.next
    before.next = following.previous = lease
    lease.previous = before
    lease.next = following
