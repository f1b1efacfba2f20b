"""What workers say of their work: which they run, and how far they are. Pure: hearing and loop time are passed in.

Beside the book, by name, for those alone that state `running` or `progress`. Nothing here ends a life. The rules:

1. A row is *leaked* when the database says that a worker runs it and the worker says that it does not. A list that is
   empty says so of every row; no list at all says nothing of any. What an incarnation says counts for itself alone.
2. The database is asked first. A report counts against a row only if NATS had not accepted it before Postgres had
   answered that the row is RUNNING in this worker's name (`not_before`, as in `beginnings`): so what a claim that was
   under way made of a row is no leak, whichever clock dates it, and neither is a row that was claimed since.
3. Two such reports must lie more than `leak_grace` apart, in hearing time, and every report between them must have left
   the row out, too. What counts is how far apart NATS accepted them at the least, for the last one may come late: from
   when the first one was heard until `least_stamp` of the last one. A report that was under way for long may be older
   than the row's claim: then so are those with it, and the first one in time names the row. Where beats may have been
   lost between them, it all begins anew.
4. At both ends the row is the same: RUNNING, that owner, the same `mark` (its xmin), under the same epoch. Whoever
   touches it in between, and be it with nothing, begins it anew.
5. A worker *stands still* when its `progress` is the same in two beats that lie `wedge_after` apart, as above, and it
   ran something in every beat between. Of one that states no list Postgres has to say so, twice as well.
6. A beat that names no incarnation, of a name whose bearer names one, may be another process's, and what that runs the
   bearer does not list. So within a ttl of one nothing that the bearer says counts. Where the bearer names none either,
   its beats may be those of several: a row has to be missing for a ttl, too, in which each of them that lives is heard;
   and a beat without a list between two, which may be of one that lists nothing, begins it anew.
7. What strangers state costs little: a list that takes more than `LIST_MOST` bytes, or one beyond `ALL_MOST` in all,
   counts as none.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping

import msgspec

from liveness.lease import Lease
from liveness.leases import LeaseTable

# Bytes of one list, about: 10,000 UUIDs; and of all: two and a half million.
LIST_MOST, ALL_MOST = 1 << 20, 1 << 28
# What a text takes beyond its characters.
_ID_BYTES = 64

_FOLDED = str.maketrans("", "", "-{}\0")


class Unreported(msgspec.Struct, frozen=True):
    """A row of the host's that is RUNNING in the name of a worker which does not list it."""

    worker: str
    work: str
    id: str
    mark: str


class Leak(msgspec.Struct, frozen=True):
    """A row that leaked, and the evidence: how long it was left out (seconds), in how many reports."""

    worker: str
    epoch: int
    incarnation: str | None
    work: str
    id: str
    mark: str
    left_out_for: float
    reports: int


class _Missing(msgspec.Struct):
    """A row that was found missing: under which epoch, and by which report first; None: by none that counts yet."""

    mark: str
    epoch: int
    losses: int
    first: float | None = None
    reports: int = 0


class Report(msgspec.Struct):
    """What one incarnation of a worker says. All times are hearing time but `looked_at`, which is the loop's."""

    incarnation: str | None
    running: list[str] | None = None
    size: int = 0
    # NATS had not accepted its last list before that.
    said_at: float = 0.0
    progress: int | None = None
    # Since when it stands still while it runs something, by its beats; and before when NATS had not accepted its last
    # beat that says so.
    still_since: float = 0.0
    still_at: float = 0.0
    # Of one that states no list: since when Postgres says that it runs something.
    busy_since: float | None = None
    # What was missing at the last look. When that was; which reports counted since then; and what they listed.
    missing: dict[tuple[str, str], _Missing] = {}
    looked_at: float = 0.0
    first: float | None = None
    reports: int = 0
    listed: set[str] | None = None
    listed_size: int = 0


class Reports:
    """The reports, by the names of leases. `leak_grace` and `wedge_after` in seconds; 0: nobody stands still."""

    def __init__(self, *, leak_grace: float, wedge_after: float) -> None:
        self.of: dict[bytes, Report] = {}
        # Who stands still by its own beats.
        self.standing: dict[bytes, Report] = {}
        self.refused = 0
        self._leak_grace = leak_grace
        self._wedge_after = wedge_after
        self._size = 0
        self._losses = 0

    def hear(
        self,
        lease: Lease,
        running: list[str] | None,
        progress: int | None,
        now: float,
        not_before: float,
        least_stamp: float,
    ) -> None:
        """Take what a beat of the incarnation that `lease` bears says, at hearing time `now`.

        NATS had not accepted it before `not_before`, in loop time, and `least_stamp`, in hearing time.
        """
        report = self.of.get(lease.name)
        if report is None or report.incarnation != lease.incarnation:
            report = self._begin(lease, now)
        if running is not None:
            self._list(report, running, now, not_before, least_stamp)
        if progress is not None:
            self._progress(lease, report, progress, running, now, least_stamp)

    def heard_unlisted(self, lease: Lease) -> None:
        """Note that a beat came which states no list, and whose incarnation `lease` bears: none, perhaps."""
        report = self.of.get(lease.name)
        if report is not None and report.incarnation is None and lease.incarnation is None:
            report.missing = {}

    def lost(self) -> None:
        """Note that beats may have been lost: what was said between two that were heard is not known."""
        self._losses += 1

    def tidy(self, book: LeaseTable, some: Iterable[bytes]) -> None:
        """Forget those of `some` names that left the book."""
        for name in some:
            if book.find(name) is None:
                self._forget(name)

    def listing(self, book: LeaseTable, some: Iterable[bytes]) -> Iterator[tuple[str, list[str]]]:
        """Go through those of `some` names whose reports may be held against rows, with what they list."""
        for name in some:
            lease, report = book.find(name), self.of.get(name)
            if report is not None and report.running is not None and lease is not None and _is_one(book, lease, report):
                yield lease.worker, report.running

    def looked(
        self, book: LeaseTable, asked: Mapping[str, list[str]], found: Iterable[Unreported], loop_time: float
    ) -> list[Leak]:
        """Take Postgres' answer of `loop_time` to which rows of the names `asked` are missing in their lists.

        Return those that have leaked; each of them begins anew.
        """
        leaks: list[Leak] = []
        by_worker: dict[str, list[Unreported]] = {}
        for row in found:
            by_worker.setdefault(row.worker, []).append(row)
        for worker in asked:
            lease = book.get(worker)
            report = None if lease is None else self.of.get(lease.name)
            if lease is None or report is None:
                continue
            rows = by_worker.get(worker, ()) if _is_one(book, lease, report) else ()
            leaks += self._look(lease, report, rows)
            report.looked_at, report.first, report.reports = loop_time, None, 0
            report.listed, report.listed_size = None, 0
        return leaks

    def is_wedged(self, book: LeaseTable, name: bytes) -> bool:
        """Say whether the worker of that name stands still while it runs something."""
        report, lease = self.standing.get(name), book.find(name)
        if report is None or lease is None or not _is_one(book, lease, report):
            return False
        since = report.still_since
        if report.running is None:
            if report.busy_since is None:
                return False
            since = max(since, report.busy_since)
        return report.still_at - since >= self._wedge_after

    def unlisted(self) -> list[str]:
        """Return who stands still and does not say what it runs: Postgres has to be asked. First of the new ones."""
        unlisted = [(name, report) for name, report in self.standing.items() if report.running is None]
        unlisted.sort(key=lambda one: one[1].busy_since is not None)
        return [name.decode() for name, _ in unlisted]

    def busy(self, asked: Iterable[str], running: Mapping[str, int], now: float) -> None:
        """Take Postgres' answer to how much those that were `asked` about run."""
        for worker in asked:
            report = self.standing.get(worker.encode())
            if report is not None and not running.get(worker):
                # Idle, which is no standstill.
                report.still_since, report.busy_since = now, None
                del self.standing[worker.encode()]
            elif report is not None and report.busy_since is None:
                report.busy_since = now

    def _begin(self, lease: Lease, now: float) -> Report:
        self._forget(lease.name)
        report = self.of[lease.name] = Report(lease.incarnation, still_since=now)
        return report

    def _forget(self, name: bytes) -> None:
        report = self.of.pop(name, None)
        self.standing.pop(name, None)
        if report is not None:
            self._size -= report.size

    def _list(self, report: Report, running: list[str], now: float, not_before: float, least_stamp: float) -> None:
        size = _size_of(running)
        self._size += size - report.size
        report.size = size
        if size > LIST_MOST or self._size > ALL_MOST:
            self._size -= size
            self.refused += 1
            report.running, report.size, report.missing = None, 0, {}
            return
        report.running, report.said_at = running, least_stamp
        if not report.missing:
            return
        if not_before >= report.looked_at:
            report.reports += 1
            if report.first is None:
                report.first = now
        listed = report.listed = report.listed or set()
        report.listed_size += _size_of(set(running) - listed)
        listed.update(running)
        if report.listed_size > LIST_MOST:
            # It lists others with every beat: nobody keeps all that.
            report.missing, report.listed, report.listed_size = {}, None, 0

    def _progress(
        self,
        lease: Lease,
        report: Report,
        progress: int,
        running: list[str] | None,
        now: float,
        least_stamp: float,
    ) -> None:
        if progress != report.progress or (running is not None and not running):
            report.progress, report.still_since, report.busy_since = progress, now, None
            self.standing.pop(lease.name, None)
        report.still_at = least_stamp
        # Of one that lists nothing Postgres is asked in time.
        least = self._wedge_after if report.running is not None else self._wedge_after / 2
        if 0 < least <= report.still_at - report.still_since:
            self.standing[lease.name] = report

    def _look(self, lease: Lease, report: Report, rows: Iterable[Unreported]) -> list[Leak]:
        leaks = []
        epoch = lease.epoch or 0
        # Whoever else beats without a name is heard within its ttl.
        grace = self._leak_grace if report.incarnation is not None else max(self._leak_grace, lease.ttl)
        listed = report.listed or set()
        folded = {folded_id(one) for one in listed}
        before, report.missing = report.missing, {}
        for row in rows:
            key = row.work, row.id
            one = before.get(key)
            is_same = one is not None and (one.mark, one.epoch, one.losses) == (row.mark, epoch, self._losses)
            if one is None or not is_same or row.id in listed or folded_id(row.id) in folded:
                one = _Missing(row.mark, epoch, self._losses)
            else:
                one.first = report.first if one.first is None else one.first
                one.reports += report.reports
                if one.first is not None and report.said_at - one.first > grace:
                    leaks.append(
                        Leak(
                            lease.worker, epoch, report.incarnation, row.work, row.id, row.mark,
                            # Both ends left it out, though the last one may not be one of those that count.
                            report.said_at - one.first, max(one.reports, 2),
                        )
                    )  # fmt: skip
                    one = _Missing(row.mark, epoch, self._losses)
            report.missing[key] = one
        return leaks


def folded_id(id: str) -> str:  # noqa: A002 - the word for it
    """Return an id without what its spellings differ in: upper case, a UUID's hyphens, braces and prefix of a URN.

    And white space: what a `char(n)` column is filled up with is gone where Postgres makes a text of it. That two ids
    are taken for one by it can only spare a row.
    """
    return id.strip().lower().removeprefix("urn:uuid:").translate(_FOLDED)


def _size_of(ids: Collection[str]) -> int:
    return sum(map(len, ids)) + _ID_BYTES * len(ids)


def _is_one(book: LeaseTable, lease: Lease, report: Report) -> bool:
    """Say whether what `report` says is the life's that `lease` tells of, and nobody else's."""
    incarnations, worker = book.incarnations, lease.worker
    claim = incarnations.claims.get(worker)
    return (
        lease.ending is None
        and lease.epoch is not None
        and report.incarnation == lease.incarnation
        and max(report.said_at, report.still_at) - incarnations.nameless_at.get(worker, -math.inf) >= lease.ttl
        # Since when it is there may never be known; but nobody else may be beside it.
        and (claim is None or (claim.incarnation == lease.incarnation and not claim.thirds))
        and worker not in incarnations.conflicts
        and worker not in book.arrivals
    )
