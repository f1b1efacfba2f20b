"""Storms: when nearly everybody falls silent at once, doubt yourself first. Pure; `now` is hearing time, in seconds.

Hearing time shows that our own NATS server speaks to us. It cannot show that the workers' beats reach that server: a
route between two servers may break, a switch, a whole zone. What tells such a fault from the death of many is that it
takes nearly everybody who comes by one way, all at once. So:

1. Leases are grouped by `via`, the NATS server that their beats state; those that state none are one group. Only leases
   heard since the start count.
2. When a lease of a group lapses and at least `LEAST` and at least `PERCENT` of its group are quiet, that is a storm.
   Who was silent through an earlier one and its sign counts neither way. Quiet is who has used up more than half of its
   ttl. To count the quiet ones and not only the lapsed ones is what saves the first of them: beats are spread over an
   interval, and by the time that 55 % had lapsed, their work would be gone. A worker that beats three times in a ttl is
   not quiet while it lives.
3. Lapses of a group in a storm wait; proofs do not. They wait for a sign: any beat by that server, of new names too,
   or a former member that is heard by another. Then whoever is still silent has one more full ttl, those too that were
   quiet when it began and lapse only after the sign, and after it they go. Without a sign they go after `max_hold` (0:
   never). Storms that follow each other hold nobody for longer than that.
4. They go in random order and at most `PERCENT_OF_A_PASS` of the group (or one) per pass, so that a mistake shows
   before it is complete. In a pause of an operator there is no pass, and who got no verdict, because Postgres did not
   answer, is held as before and goes by a later one. The hold itself runs on through both: if it is over when somebody
   resumes, or when Postgres is back, the first pass comes at once; or, where beats may have been lost just before, as
   soon as what is owed for that is over (`expiry`). Then there is a pass a second, as ever.
5. If `LEAST` or more leases were restored at the start and nobody at all has been heard when the first of them lapses,
   that is a storm, too, and the first beat of anybody is its sign. Where somebody was heard before, it is none: a
   database full of workers that are long dead is cleared at once.
6. A replica that does not act judges in the same way (`watch`), and lets nobody go. So one that has listened since
   before a storm and takes over in it goes on with it, and behind the sign it owes what that promised.

One worker alone, or two, are never a storm.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain

import msgspec

from liveness.group import Group, Promise, Storm
from liveness.lease import Lease
from liveness.leases import LeaseTable

# Kubernetes' zone rule has the same two numbers: more than two, and at least 55 % of the zone.
LEAST = 3
PERCENT = 55
# Eureka expires at most this share of its registry at once, for the same reason.
PERCENT_OF_A_PASS = 15
# Between two passes: long enough to see what the first has done.
PASS_SECONDS = 1.0
QUIET_SHARE_OF_TTL = 0.5
# Beyond so many groups the empty ones are forgotten; no real deployment has more NATS servers.
GROUPS_REMEMBERED = 1_000
# The quiet ones of 100,000 take a tenth of a second to count, and lapses come fifty times a second.
COUNT_SECONDS = 0.25
# Who does not act goes through so many that are overdue in a second, a tenth of what it could; but what a sign promises
# may not be missed, so it looks once in so many seconds.
WATCHED_PER_SECOND = 40_000
WATCH_SECONDS = 1.0


class News(msgspec.Struct, frozen=True):
    """A storm that began (`held`), that lets go (`released`), or that is over (`over`)."""

    via: str
    state: str
    members: int
    silent: int
    held_for: float


class Count(msgspec.Struct):
    """A group at one moment: of how many members how many were quiet, and the longest ttl (seconds) of those.

    Apart from them, those that were silent through a storm and its sign.
    """

    members: int
    quiet: int = 0
    silent_before: int = 0
    longest_ttl: float = 0.0

    @property
    def is_storm(self) -> bool:
        """Whether so many at once are a storm."""
        return self.quiet >= LEAST and 100 * self.quiet >= PERCENT * (self.members - self.silent_before)


class Storms:
    """Who may lapse. `max_hold` in seconds, 0 for ever; `shuffle` puts those that go into random order."""

    def __init__(self, *, max_hold: float, shuffle: Callable[[list[Lease]], None]) -> None:
        self.groups: dict[str, Group] = {}
        # Since the start; counted, and never read here.
        self.begun = 0
        self._storming: list[Group] = []
        self._tidy_at = GROUPS_REMEMBERED
        self._counted_at = -math.inf
        self._counted: dict[str, Count] = {}
        self._loomed_at = -math.inf
        self._loomed: dict[str, Count] = {}
        self.news: list[News] = []
        self._max_hold = max_hold or math.inf
        self._shuffle = shuffle
        self._heard_anybody = False
        # How many leases were overdue when one that does not act looked last; read by who tells how it is.
        self.overdue = 0
        # Up to when those that do not act have judged, and when to look again.
        self._watched_to = self._watch_at = -math.inf
        # Those that were restored and not heard yet.
        self._restored = Group("(restored)")

    @property
    def holding(self) -> bool:
        """Whether lapses are held anywhere."""
        return bool(self._storming)

    def held(self, now: float) -> list[str]:
        """Return a line for each storm."""
        return [_line(group, storm, now) for group in self._storming if (storm := group.storm) is not None]

    def hold(self, lease: Lease, now: float) -> tuple[str, float] | None:
        """Return the line of the storm that holds the lapse of `lease` and for how many more seconds at most, or None.

        Behind those come the passes, by which not all go at once; infinity: until there is a sign.
        """
        group, ending = lease.group or self._restored, lease.ending
        storm = group.storm
        if storm is None or ending is None or ending.proof or ending.let_go:
            return None
        until = min(ending.deadline + self._max_hold, storm.owed_from + lease.ttl)
        return _line(group, storm, now), max(until - now, 0.0)

    def restored(self, leases: int) -> None:
        """Note how many leases were restored at the start."""
        self._restored.members = leases

    def heard(self, lease: Lease, via: str | None, now: float) -> None:
        """Note a beat of `lease` that came by the NATS server `via`, or by one that it does not state."""
        if not self._heard_anybody:
            self._heard_anybody = True
            _sign(self._restored, now)
        group = lease.group
        if group is None or (via is not None and via != group.via):
            former, group = group, self._group(via or "")
            if former is not None:
                former.remove(lease)
                _sign(former, now)
            group.add(lease)
        if group.storm is not None:
            _sign(group, now)

    def lost(self, now: float) -> None:
        """Note that beats may have been lost until now: what a sign promised counts from here."""
        for group in self._storming:
            if group.storm is not None:
                group.storm.lost(now)

    def overheard(self, via: str | None, now: float) -> None:
        """Note a beat that renewed no lease: it came by that server all the same."""
        group = self.groups.get(via or "")
        if group is not None:
            _sign(group, now)

    def judge(self, book: LeaseTable, lapsed: Iterable[Lease], now: float) -> None:
        """Look at what has just lapsed, and say whether it is a storm by setting the group's."""
        doubtful = {}
        restored = 0
        for lease in lapsed:
            if lease.group is None:
                restored += 1
            elif lease.group.members >= LEAST and not lease.group.is_held:
                doubtful[lease.group.via] = lease.group
        if restored and not self._heard_anybody and self._restored.storm is None and self._restored.members >= LEAST:
            longest = max((lease.ttl for lease in book if lease.group is None), default=0.0)
            self._begin(self._restored, restored, longest, now)
        if doubtful:
            if now - self._counted_at >= COUNT_SECONDS or now < self._counted_at:
                self._counted_at, self._counted = now, _count(book, now)
            for via, group in doubtful.items():
                count = self._counted.get(via)
                if count is not None and count.is_storm:
                    promises: list[Promise] = []
                    if group.storm is not None:
                        # One in the wake of another: the sign was good for the first only, and for whom it held.
                        promises = group.storm.passed_on(now)
                        self._over(group, now)
                    self._begin(group, count.quiet, count.longest_ttl, now, promises)
                    # A sign that comes now would make another storm of the same count.
                    del self._counted[via]

    def looms(self, book: LeaseTable, group: Group, now: float) -> bool:
        """Say whether a lapse in `group` would be a storm."""
        if group.members < LEAST:
            return False
        # Apart from what lapses are judged by, which must not be older than they are.
        if now - self._loomed_at >= COUNT_SECONDS or now < self._loomed_at:
            self._loomed_at, self._loomed = now, _count(book, now)
        count = self._loomed.get(group.via)
        return count is not None and count.is_storm

    def watch(self, book: LeaseTable, now: float, *, away: bool = False) -> None:
        """Judge what is overdue while another replica acts: each once, when it would have lapsed here.

        `away`: Postgres has not answered us when we asked last.
        """
        if now < self._watch_at:
            return
        overdue = list(book.lines.overdue(now))
        self.overdue = len(overdue)
        pause = len(overdue) / WATCHED_PER_SECOND
        before, self._watched_to = self._watched_to, now
        self._watch_at = now + min(max(pause, COUNT_SECONDS), WATCH_SECONDS)
        self.judge(book, [lease for deadline, lease in overdue if deadline > before], now)
        if self._storming:
            lapsed = (lease for lease in book.endings.values() if lease.ending is not None and not lease.ending.proof)
            waiting = Counter(
                (lease.group or self._restored).via for lease in chain((lease for _, lease in overdue), lapsed)
            )
            self._end_past(waiting if away else {}, now)
        # The one who acts tells it; but perhaps it does not come to that.
        holding = {group.via for group in self._storming}
        self.news = list(
            {news.via: news for news in self.news if news.state == "held" and news.via in holding}.values()
        )

    def _end_past(self, waiting: Mapping[str, int], now: float) -> None:
        for group in tuple(self._storming):
            storm = group.storm
            if storm is None or not self._is_past(group, storm, now - _passes(storm)):
                continue
            # Whoever is still overdue by then is heard by the one who acts, and by others only: no sign of before is
            # good for them. Or Postgres is away, and they wait for that.
            if not Count(group.members, waiting.get(group.via, 0)).is_storm:
                self._over(group, now)

    def let_go(
        self, endings: Sequence[Lease], now: float, may_go: Callable[[Lease], bool] = lambda _: True
    ) -> list[Lease]:
        """Return those of `endings` whose verdict may be asked for now, in their order but for those of a storm.

        By a pass of a storm only those go that `may_go`.
        """
        going: list[Lease] = []
        held: dict[int, list[Lease]] = {id(group): [] for group in self._storming}
        for lease in endings:
            ending = lease.ending
            group = lease.group or self._restored
            if ending is None or ending.proof or ending.let_go or group.storm is None:
                going.append(lease)
            else:
                held[id(group)].append(lease)
        for group in tuple(self._storming):
            if group.storm is not None:
                going += self._pass(group, group.storm, held[id(group)], now, may_go)
        return going

    def _pass(
        self, group: Group, storm: Storm, held: Sequence[Lease], now: float, may_go: Callable[[Lease], bool]
    ) -> list[Lease]:
        ready = [lease for lease in held if self._is_ready(lease, storm, now) and may_go(lease)]
        if not held and self._is_past(group, storm, now):
            self._over(group, now)
            return []
        if not ready or now < storm.next_pass:
            return []
        if not storm.ending:
            storm.ending = True
            self._tell(group, storm, "released", len(held), now)
        storm.next_pass = now + PASS_SECONDS
        self._shuffle(ready)
        chosen = ready[: _pass_size(storm)]
        for lease in chosen:
            if lease.ending is not None:
                lease.ending.let_go = True
        return chosen

    def _is_past(self, group: Group, storm: Storm, now: float) -> bool:
        if group.members <= 0:
            return True
        if storm.sign_at is None:
            return now - storm.since >= self._max_hold
        # Who was quiet when it began may still lapse.
        return now >= storm.owed_from + storm.longest_ttl

    def _is_ready(self, lease: Lease, storm: Storm, now: float) -> bool:
        ending = lease.ending
        if ending is None:
            return False
        # By its deadline: it may have lapsed while another one acted.
        held_long = now - ending.deadline >= self._max_hold
        kept = any(promise.is_kept(lease, now) for promise in storm.promises)
        return held_long or kept or now >= storm.owed_from + lease.ttl

    def _begin(
        self, group: Group, quiet: int, longest_ttl: float, now: float, promises: Sequence[Promise] = ()
    ) -> None:
        group.storm = Storm(
            since=now, members=group.members, quiet=quiet, longest_ttl=longest_ttl, promises=list(promises)
        )
        self._storming.append(group)
        self.begun += 1
        self._tell(group, group.storm, "held", quiet, now)

    def _over(self, group: Group, now: float) -> None:
        storm, group.storm = group.storm, None
        if storm is not None:
            self._storming.remove(group)
            self._tell(group, storm, "over", 0, now)

    def _tell(self, group: Group, storm: Storm, state: str, silent: int, now: float) -> None:
        self.news.append(
            News(via=group.via, state=state, members=storm.members, silent=silent, held_for=now - storm.since)
        )

    def _group(self, via: str) -> Group:
        group = self.groups.get(via)
        if group is None:
            if len(self.groups) >= self._tidy_at:
                self.groups = {name: group for name, group in self.groups.items() if group.members > 0 or group.storm}
                # Twice, so that looking through them all is rare however many there are.
                self._tidy_at = max(GROUPS_REMEMBERED, 2 * len(self.groups))
            group = self.groups[via] = Group(via)
        return group


def _count(book: LeaseTable, now: float) -> dict[str, Count]:
    """Count, by group, who has used up more than half of its ttl, lapsed ones among them."""
    counts: dict[str, Count] = {}
    due = book.lines.due_within(now, lambda ttl: QUIET_SHARE_OF_TTL * ttl)
    for lease in chain(due, book.endings.values()):
        group = lease.group
        if group is None or (lease.ending is not None and lease.ending.proof):
            continue
        count = counts.get(group.via)
        if count is None:
            # As many as now: those that leave until it is counted again are still among the quiet ones.
            count = counts[group.via] = Count(group.members)
        if group.was_silent(lease):
            count.silent_before += 1
        else:
            count.quiet += 1
            count.longest_ttl = max(count.longest_ttl, lease.ttl)
    return counts


def _pass_size(storm: Storm) -> int:
    return max(storm.members * PERCENT_OF_A_PASS // 100, 1)


def _passes(storm: Storm) -> float:
    """Return how long all the passes of a storm take, in seconds."""
    return PASS_SECONDS * math.ceil(storm.members / _pass_size(storm))


def _sign(group: Group, now: float) -> None:
    if group.storm is not None and group.storm.sign_at is None:
        group.storm.sign_at = group.storm.owed_from = now


def _line(group: Group, storm: Storm, now: float) -> str:
    return (
        f"storm: {storm.quiet} of {storm.members} workers by {_named(group)} fell silent at once; lapses are held "
        f"since {now - storm.since:.0f} s"
    )


def _named(group: Group) -> str:
    if group.via == "":
        return "NATS"
    return group.via if group.via.startswith("(") else f"the NATS server {group.via}"
