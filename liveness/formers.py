"""Former incarnations: those that a newer one of their name has replaced. Pure."""

from collections.abc import Callable, Iterable

# Former incarnations of one name that are remembered. One that restarts more often while its former processes still
# beat is beyond help.
FORMERS_REMEMBERED = 8
# Of all names: 100 MB at most (64 characters of four bytes each). A fleet of 30,000 that restarts for ever has as many;
# whoever invents names for each of which processes restart has them in a quarter of an hour. Beyond them a name keeps
# only its newest, so that nobody can make it forget those: who has replaced whom before is a conflict then, if it beats
# still, and nothing is taken for that.
ALL_FORMERS_REMEMBERED = 250_000
NEWEST_FORMERS = 2
# Processes of names that left the book of which somebody said that they have died: what they sent may still come.
DEAD_REMEMBERED = 10_000


class Formers:
    """The former incarnations of all names, with the epochs they lived under; of each the newest few.

    One of which a certificate says that it has died is a former one even when its name has left the book: it is over
    whatever comes late, and must not replace who has the name by then.
    """

    def __init__(self) -> None:
        # By name: incarnation to the epoch it lived under, None while that is not known.
        self._formers: dict[str, dict[str, int | None]] = {}
        # By name: how old (seconds) those were at their goodbye that are former ones by nothing but that.
        self._left_at: dict[str, dict[str, float]] = {}
        # Of all names.
        self._remembered = 0
        # Names and incarnations, the oldest first.
        self._dead: dict[tuple[str, str], None] = {}

    def is_former(self, worker: str, incarnation: str | None) -> bool:
        """Say whether a newer incarnation of `worker` is known than this one, or that it has died."""
        if incarnation is None:
            return False
        return incarnation in self._formers.get(worker, ()) or (worker, incarnation) in self._dead

    def is_over(self, worker: str, incarnation: str, uptime: float | None) -> bool:
        """Say whether a hello that `incarnation` said at the age of `uptime` seconds is a former one's.

        It is not when that has said goodbye before, and nothing else: it has begun another life.
        """
        left_at = self._left_at.get(worker, {}).get(incarnation)
        again = left_at is not None and uptime is not None and left_at < uptime
        return (worker, incarnation) in self._dead or (not again and self.is_former(worker, incarnation))

    def epoch_of(self, worker: str, incarnation: str) -> int | None:
        """Return the epoch under which a former incarnation lived, if that is known."""
        return self._formers.get(worker, {}).get(incarnation)

    def replaced(self, worker: str, incarnation: str | None, epoch: int | None, left_at: float | None = None) -> None:
        """Note that `incarnation`, which lived under `epoch`, is a former one from now on.

        `left_at`: by its own goodbye alone, said at that age (seconds).
        """
        if incarnation is None:
            return
        self._left_at.get(worker, {}).pop(incarnation, None)
        if left_at is not None:
            self._left_at.setdefault(worker, {})[incarnation] = left_at
        formers = self._formers.setdefault(worker, {})
        self._remembered += incarnation not in formers
        formers.pop(incarnation, None)
        formers[incarnation] = epoch
        if len(formers) > (FORMERS_REMEMBERED if self._remembered <= ALL_FORMERS_REMEMBERED else NEWEST_FORMERS):
            oldest = next(iter(formers))
            del formers[oldest]
            self._remembered -= 1
            self._left_at.get(worker, {}).pop(oldest, None)

    def died(self, worker: str, incarnation: str | None) -> None:
        """Note that the process of `incarnation` has died."""
        if incarnation is not None:
            self._dead.pop((worker, incarnation), None)
            self._dead[worker, incarnation] = None
            if len(self._dead) > DEAD_REMEMBERED:
                del self._dead[next(iter(self._dead))]

    def lives_on(self, worker: str, incarnation: str) -> None:
        """Note that `incarnation` is none after all."""
        formers = self._formers.get(worker, {})
        self._remembered -= incarnation in formers
        formers.pop(incarnation, None)
        self._left_at.get(worker, {}).pop(incarnation, None)
        self._dead.pop((worker, incarnation), None)

    def forget_formers(self, worker: str) -> None:
        """Forget those of a name that left the book, but not who has died."""
        self._remembered -= len(self._formers.pop(worker, ()))
        self._left_at.pop(worker, None)

    def restore(self, formers: Iterable[tuple[str, str, int]]) -> None:
        """Remember former incarnations that the database knows: worker, incarnation, epoch, the oldest first."""
        for worker, incarnation, epoch in formers:
            self.replaced(worker, incarnation, epoch)

    def tidy(self, lease: Callable[[str], object]) -> None:
        """Forget the former incarnations of names that have no `lease` (by name, or None): nothing else would."""
        for worker in [worker for worker in self._formers if lease(worker) is None]:
            self.forget_formers(worker)
