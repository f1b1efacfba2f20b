"""The rules `leak` and `forgotten` of `checker`: what goes back as forgotten was, and what was forgotten goes back."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from tests.simulation.postgres import Claim, Postgres, Row
from tests.simulation.replica import COMPARE_TICKS, SETTINGS
from tests.simulation.rivals import is_replaced, speaks_for_itself
from tests.simulation.workers import INTERVALS, Worker
from tests.simulation.world import World

# Seconds after which what was forgotten is back when all is well: the look that finds it, the beat that it is held
# against, the grace and the beat that ends it, the echo before that, the look at it, and the transaction of each.
FORGOTTEN = (
    SETTINGS.leak_grace
    + 2 * max(INTERVALS)
    + SETTINGS.echo_interval
    + 3 * (COMPARE_TICKS * SETTINGS.echo_interval + 1.0)
)


class Leaks:
    """Watches what is forgotten. `calm_at()` says when the last fault was over."""

    def __init__(
        self,
        world: World,
        postgres: Postgres,
        processes: Mapping[str, Sequence[Worker]],
        wrong: Callable[[str, str], None],
        checked: Counter[str],
        calm_at: Callable[[], float],
    ) -> None:
        self._world, self._postgres = world, postgres
        self._processes = processes
        self._wrong = wrong
        self._checked = checked
        self._calm_at = calm_at

    def taken(self, row: Row, claim: Claim) -> None:
        """Judge a row that goes back because its owner does not list it."""
        process: Worker = claim.process
        self._world.tell(f"{row.id} of {process.incarnation} goes back as leaked")
        self._checked["leak"] += 1
        if claim.completed or claim.taken:
            self._wrong("finisher", f"row {row.id} leaks though its claim was over")
        forgotten_at = None if process.listing is None else process.listing.forgotten_at(row, claim)
        ear = self._postgres.deciding[0].ear
        works = process.alive and not claim.dropped and forgotten_at is None
        same_name = self._processes[process.name]
        if works and speaks_for_itself(process, ear) and not is_replaced(process, same_name, ear):
            self._wrong("leak", f"{process.incarnation} works on {row.id}, and it goes back as leaked")
        elif forgotten_at is not None and self._is_owed(process):
            self._judge(row, process, forgotten_at)

    def waiting(self) -> list[str]:
        """Return what was forgotten, and is left to come back, a line each."""
        return [f"{row.id} of {process.incarnation}" for row, process, _ in self._left()]

    def finish(self) -> None:
        """Judge what is left at the end."""
        for row, process, forgotten_at in self._left():
            self._judge(row, process, forgotten_at)

    def _left(self) -> Iterator[tuple[Row, Worker, float]]:
        if not self._world.habits.listing:
            return
        for row in self._postgres.rows.values():
            claim = row.claim
            if row.status != "RUNNING" or claim is None or claim.process.listing is None:
                continue
            forgotten_at = claim.process.listing.forgotten_at(row, claim)
            if forgotten_at is not None and self._is_owed(claim.process):
                yield row, claim.process, forgotten_at

    def _is_owed(self, process: Worker) -> bool:
        # Of two that live, or of one that is over by another's word, nothing that it lists counts; nor of one that does
        # not say when it began where there were others.
        same_name = self._processes[process.name]
        is_one = process.alive and not process.beside and same_name[-1] is process
        return is_one and (process.style in {"uptime", "hello"} or same_name[0] is process)

    def _judge(self, row: Row, process: Worker, forgotten_at: float) -> None:
        self._checked["forgotten"] += 1
        # Whatever a list leaves out, it does so under one epoch; and that begins when the process is believed.
        lives = self._postgres.epochs[process.name]
        late = self._world.now - max(self._calm_at(), forgotten_at, lives[-1].began_at if lives else 0.0)
        if late > FORGOTTEN:
            self._wrong(
                "forgotten", f"{row.id} of {process.incarnation} was forgotten {late:.2f} s ago, and all is well"
            )
