"""Former incarnations: those that a newer one of their name has replaced. Pure."""

from collections.abc import Callable, Iterable

# Former incarnations of one name that are remembered. One that restarts more often while its former processes still
# beat is beyond help.
FORMERS_REMEMBERED = 8


class Formers:
    """The former incarnations of all names, with the epochs they lived under; of each the newest few."""

    def __init__(self) -> None:
        # By name: incarnation to the epoch it lived under, None while that is not known.
        self._formers: dict[str, dict[str, int | None]] = {}

    def is_former(self, worker: str, incarnation: str | None) -> bool:
        """Say whether a newer incarnation of `worker` is known than this one."""
        return incarnation is not None and incarnation in self._formers.get(worker, ())

    def epoch_of(self, worker: str, incarnation: str) -> int | None:
        """Return the epoch under which a former incarnation lived, if that is known."""
        return self._formers.get(worker, {}).get(incarnation)

    def replaced(self, worker: str, incarnation: str | None, epoch: int | None) -> None:
        """Note that `incarnation`, which lived under `epoch`, is a former one from now on."""
        if incarnation is None:
            return
        formers = self._formers.setdefault(worker, {})
        formers.pop(incarnation, None)
        formers[incarnation] = epoch
        if len(formers) > FORMERS_REMEMBERED:
            del formers[next(iter(formers))]

    def lives_on(self, worker: str, incarnation: str) -> None:
        """Note that `incarnation` is none after all."""
        self._formers.get(worker, {}).pop(incarnation, None)

    def forget_formers(self, worker: str) -> None:
        """Forget those of a name that left the book."""
        self._formers.pop(worker, None)

    def restore(self, formers: Iterable[tuple[str, str, int]]) -> None:
        """Remember former incarnations that the database knows: worker, incarnation, epoch, the oldest first."""
        for worker, incarnation, epoch in formers:
            self.replaced(worker, incarnation, epoch)

    def tidy(self, lease: Callable[[str], object]) -> None:
        """Forget the former incarnations of names that have no `lease` (by name, or None): nothing else would."""
        for worker in [worker for worker in self._formers if lease(worker) is None]:
            del self._formers[worker]
