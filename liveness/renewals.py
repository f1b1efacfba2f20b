"""The short way in: a run of heartbeats that change nothing but when their workers were heard. No database, no await.

Nearly all heartbeats are of that kind, and they are most of what the service does. So a run of them is taken from the
bytes that came off the socket in one go: no message, subject or task for each, the clock is read once, and a beat is
read only for what a renewal depends on. The rules that this file keeps:

1. It does what `Intake.heartbeat` would have done, or nothing. Whatever is not plainly a renewal (a name or an
   incarnation that is not the lease's, another ttl, the first beat, one that revives, one that somebody waits for, one
   by another NATS server, one that ends a storm's hold, one that does not decode) ends the run, goes the long way, and
   the next run begins behind it. So every rule about them stands in one place, which is not this one.
2. Beats, echoes and goodbyes keep their order: a run ends where anything else comes.
3. A run comes from one read of the socket, so all of its beats were there when it began: then they were heard.

Who states a ttl that is not kept as stated (out of bounds, or of more than three digits) always goes the long way.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator

import msgspec

from liveness.hearing import Hearing
from liveness.leases import LeaseTable
from liveness.messages import SHORT, Renewal, decode_renewal
from liveness.reports import Reports
from liveness.settings import Settings

# What a size looks like on the wire: to look it up costs half of what reading a number costs.
_SIZES = tuple(b"%d" % size for size in range(SHORT + 1))
_SILENT = Renewal()
# What is no heartbeat, or none of this kind.
_UNDECODED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Renewals:
    """Renews leases by runs of heartbeats. `counts` is the intake's; `clock` is the loop's monotonic time."""

    def __init__(
        self,
        *,
        book: LeaseTable,
        hearing: Hearing,
        settings: Settings,
        clock: Callable[[], float],
        counts: Counter[str],
        reports: Reports,
    ) -> None:
        self._book = book
        self._hear = reports.hear
        self._hearing = hearing
        self._min_ttl, self._max_ttl = settings.min_ttl, settings.max_ttl
        self._clock = clock
        self._counts = counts

    def take(self, beats: Iterator[re.Match[bytes]]) -> int:
        """Take as many `beats` as are plain renewals, and return where the last of them ends; 0 if none is.

        The groups of a beat are the worker's name, the size that the server states, and the payload up to the next CR,
        of at most `SHORT` bytes.
        """
        book = self._book
        find, renew = book.find, book.lines.renew
        claims, arrivals = book.incarnations.claims, book.arrivals
        least, most = self._min_ttl, self._max_ttl
        now, taken, last = 0.0, 0, None
        for match in beats:
            name, size, payload = match.groups()
            lease = find(name)
            if lease is None or size != _SIZES[len(payload)]:
                break
            if payload:
                try:
                    beat = decode_renewal(payload)
                except _UNDECODED:
                    break
            else:
                beat = _SILENT
            ttl, via, group = beat.ttl, beat.via, lease.group
            interval = beat.interval
            if (
                beat.incarnation != lease.incarnation
                or lease.ending is not None
                or (ttl is not None and (ttl != lease.stated or not least <= ttl <= most))
                # It was never heard.
                or group is None
                or lease.last_beat is None
                or (via is not None and via != group.via)
                or (interval is not None and not lease.line.above < interval <= lease.line.pace)
                or group.storm is not None
                # These are nearly always empty, and a name has to be made for a look into them.
                or (claims and lease.worker in claims)
                or (arrivals and lease.worker in arrivals)
            ):
                break
            if not taken:
                # Not before: a stamp leaves its mark on hearing time, and perhaps there is no beat.
                now = self._hearing.stamp(self._clock())
            lease.probe, lease.draining = beat.probe, beat.draining
            lease.last_beat = now
            renew(lease, now)
            if beat.running is not None or beat.progress is not None:
                hearing = self._hearing
                self._hear(lease, beat.running, beat.progress, now, hearing.not_before, hearing.least_stamp)
            taken += 1
            last = match
        self._counts["heartbeats"] += taken
        return 0 if last is None else last.end()
