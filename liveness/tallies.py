"""What was done and how long it took, counted for whoever measures the service. Pure: durations are passed in."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence

from liveness.verdicts import Case, Outcome, Verdict

# Seconds. Below the first a reclaim is as good as at once; beyond the last, the hours of an outage are one thing.
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Durations:
    """A histogram of durations in seconds: how many were at most as long as each bound, and their sum."""

    def __init__(self, bounds: tuple[float, ...] = BUCKETS) -> None:
        self.sum = 0.0
        self._bounds = bounds
        # The last one: longer than all bounds.
        self._counts = [0] * (len(bounds) + 1)

    def note(self, seconds: float, times: int = 1) -> None:
        """Count a duration; one below 0 is a clock's, and counts as 0."""
        seconds = max(seconds, 0.0)
        self._counts[bisect_left(self._bounds, seconds)] += times
        self.sum += seconds * times

    def buckets(self) -> list[tuple[str, int]]:
        """Return each bound with how many were at most as long; the last one, `+Inf`, with how many there were."""
        found, so_far = [], 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            so_far += count
            found.append((bound, so_far))
        return found


class Tallies:
    """What reclaims have committed since the process began. Keys: word for the work, reason, verdict, as they are told.

    `mode`, the last part of some keys, is that in which the life ended: of `observe`, nothing was touched.
    """

    def __init__(self) -> None:
        # (reason, verdict), of every case at every time that it was offered.
        self.verdicts: Counter[tuple[str, str]] = Counter()
        # (reason, mode) of lives.
        self.ended: Counter[tuple[str, str]] = Counter()
        # (work, reason, mode) of rows that went back.
        self.items: Counter[tuple[str, str, str]] = Counter()
        # By work: rows that killed too many workers, those of them set aside, and rows that their tables refused.
        self.crashing: Counter[str] = Counter()
        self.quarantined: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        # From the offer to the commit, of each transaction that ended a life.
        self.reclaim = Durations()
        # From the end of the promise to the commit, of each lapse.
        self.lateness = Durations()

    def settled(
        self, cases: Sequence[Case], verdicts: Sequence[Verdict], now: float, *, asked_at: float, mode: str
    ) -> None:
        """Count the verdicts on `cases`, which were committed `now`; these are as they were measured. Loop time."""
        for case, verdict in zip(cases, verdicts, strict=True):
            self.verdicts[case.reason, verdict.outcome.value] += 1
            if verdict.outcome is not Outcome.ENDED:
                continue
            self.ended[case.reason, mode] += 1
            self.items.update({(work, case.reason, mode): items for work, items in verdict.items.items()})
            if case.overdue is not None:
                self.lateness.note(case.overdue + now - (now if case.measured_at is None else case.measured_at))
        if any(verdict.outcome is Outcome.ENDED for verdict in verdicts):
            self.reclaim.note(now - asked_at)

    def judged(self, figures: Mapping[str, tuple[int, int]]) -> None:
        """Count, by work, rows that killed too many workers, and those of them that were set aside."""
        for work, (crashing, aside) in figures.items():
            self.crashing[work] += crashing
            self.quarantined[work] += aside

    def went_back(self, reasons: Mapping[tuple[str, str], int]) -> None:
        """Count rows that went back one by one, by work and reason: in mode act alone is any refused."""
        self.items.update({(*key, mode_of(observed=False)): items for key, items in reasons.items()})


def mode_of(*, observed: bool) -> str:
    """Return in which mode a life ended."""
    return "observe" if observed else "act"
