"""Who is suspect: silent for longer than it should be, not yet lapsed. Pure; `now` is hearing time, in seconds.

A suspect loses nothing before its ttl. That somebody is suspect is a hint, for whoever dispatches work; so what makes a
suspect may be weaker than what ends a lease. The rules that this file keeps:

1. Silent: nothing was heard for two of the intervals that the worker states, in hearing time, so in no gap. Who states
   no interval is never suspect for its silence. Where beats may have been lost, silence counts from there; where they
   may be late, nobody becomes suspect until they must have come. Less than `least` seconds are no silence: a beat is
   noted up to so much too late.
2. Asked, and nobody answered: "no responders", or nothing for `probes.PATIENCE`.
3. Disconnected: the NATS server by which it was heard said so, and no beat has come since.
4. Many at once say nothing of any of them. Of a group (`storms`: the workers by one NATS server) in a storm nobody
   becomes suspect, nor where a lapse would be a storm; nor, by silence, while `LEAST` and `PERCENT` of those that state
   an interval are late, by a quarter of it. Beats are spread over an interval, so when the first of a group was silent
   for two, all of them are late. They are looked at again at every look.
5. A beat takes it back; so does the end of the life, of which other news tells.
"""

import math
from collections import Counter
from itertools import islice

import msgspec

from liveness.group import Group
from liveness.leases import LeaseTable
from liveness.storms import LEAST, PERCENT, Storms

# Intervals of silence after which a worker is suspect, and after which it is late.
SUSPECT_INTERVALS = 2.0
LATE_INTERVALS = 1.25
# Suspects that one look finds at most: all others are found by the next ones.
AT_ONCE = 10_000
# So many that are silent are gone through in a second, a tenth of what could be.
LOOKED_AT_PER_SECOND = 40_000
# Words about workers that left meanwhile, or never were, are not kept beyond so many.
WORDS_REMEMBERED = 100_000


class Suspect(msgspec.Struct, frozen=True):
    """Why and since when (hearing time) a worker is suspect, and which beat was its last by then."""

    cause: str
    at: float
    last_beat: float | None


class Suspects:
    """The suspects, by name. `least`: seconds of silence that are none."""

    def __init__(self, *, book: LeaseTable, storms: Storms, least: float) -> None:
        self.suspected: dict[str, Suspect] = {}
        self._book = book
        self._storms = storms
        self._least = least
        self._look_at = -math.inf
        # What was said of workers since the last look: why, and which beat was the last one by then.
        self._words: dict[str, tuple[str, float | None]] = {}

    def probe_failed(self, worker: str) -> None:
        """Note that `worker`, which says that it answers probes, was asked, and nobody answered."""
        self._note(worker, "probe")

    def disconnected(self, worker: str, via: str) -> None:
        """Note that the NATS server `via` says that it lost the connection of `worker`."""
        lease = self._book.get(worker)
        # Another connection of the same name, or an older one, is not the one that it is heard by.
        if lease is not None and lease.group is not None and lease.group.via == via:
            self._note(worker, "disconnected")

    def look(self, now: float) -> None:
        """Find who is suspect now, and who is not any more."""
        if now < self._look_at:
            return
        walked = len(self.suspected)
        for worker, suspect in list(self.suspected.items()):
            lease = self._book.get(worker)
            if lease is None or lease.last_beat != suspect.last_beat:
                del self.suspected[worker]
        # Where beats may be late, whoever is said to be gone may only be late, too.
        if now >= self._book.lines.owed_until():
            words, self._words = self._words, {}
            self._judge_words(words, now)
            walked += self._judge_silence(now)
        # However many there are, looking at them leaves time for all else.
        self._look_at = now + walked / LOOKED_AT_PER_SECOND

    def _note(self, worker: str, cause: str) -> None:
        lease = self._book.get(worker)
        if lease is not None and lease.last_beat is not None and len(self._words) < WORDS_REMEMBERED:
            self._words[worker] = cause, lease.last_beat

    def _judge_words(self, words: dict[str, tuple[str, float | None]], now: float) -> None:
        found = [
            (lease, cause)
            for worker, (cause, last_beat) in words.items()
            if worker not in self.suspected
            and (lease := self._book.get(worker)) is not None
            and lease.ending is None
            and lease.last_beat == last_beat
        ]
        # Those that were said to be gone at once may be many before any of them can be late.
        said = Counter(id(lease.group) for lease, _ in found)
        for lease, cause in found:
            group = lease.group
            if group is not None and not _are_many(said[id(group)], group.members) and not self._storms_at(group, now):
                self.suspected[lease.worker] = Suspect(cause, now, lease.last_beat)

    def _judge_silence(self, now: float) -> int:
        """Find who is suspect for its silence; return how many were gone through."""
        lines, suspected = self._book.lines, self.suspected
        silent = lines.silent(now, lambda pace: max(SUSPECT_INTERVALS * pace, self._least))
        if all(lease.worker in suspected for lease in silent):
            return len(suspected)
        late: dict[int, int] = Counter(id(lease.group) for lease in lines.silent(now, self._late_after))
        doubted: dict[int, bool] = {}
        silent = lines.silent(now, lambda pace: max(SUSPECT_INTERVALS * pace, self._least))
        found = (
            lease
            for lease in silent
            if lease.worker not in suspected and self._is_believed(lease.group, late, doubted, now)
        )
        for lease in list(islice(found, AT_ONCE)):
            suspected[lease.worker] = Suspect("silent", now, lease.last_beat)
        return 2 * sum(late.values())

    def _is_believed(self, group: Group | None, late: dict[int, int], doubted: dict[int, bool], now: float) -> bool:
        """Say whether the silence of somebody in `group` says anything of him; remembered in `doubted`."""
        if group is None:
            return False
        doubt = doubted.get(id(group))
        if doubt is None:
            doubt = doubted[id(group)] = _are_many(late[id(group)], group.stating) or self._storms_at(group, now)
        return not doubt

    def _storms_at(self, group: Group, now: float) -> bool:
        return group.storm is not None or self._storms.looms(self._book, group, now)

    def _late_after(self, pace: float) -> float:
        return max(LATE_INTERVALS * pace, self._least * LATE_INTERVALS / SUSPECT_INTERVALS)


def _are_many(some: int, of_all: int) -> bool:
    return some >= LEAST and 100 * some >= PERCENT * of_all
