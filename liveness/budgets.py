"""Work that kills its workers: which of those that ran on a worker that died is to blame. Pure.

Every death of a worker makes all suspects that ran on it, and one of them at most did it. A piece of work that keeps
killing is there at each of its deaths; one that merely ran beside it finishes elsewhere sooner or later, and so clears
itself. The rules that this file keeps:

1. A crash counts against all that ran on the worker, for as long as the window says. What somebody wanted (a release,
   an operator, SIGTERM) and what took many at once (a storm) counts against nothing; `cases.is_crash` says which.
2. Guilty is what has as many crashes behind it as the budget, and more than everything else that ran on the worker
   that has just died. Of those with as many, nobody can tell which: they go back, and the next deaths, when they run
   apart, will tell.
3. With twice the budget it is guilty all the same: what always travels together cannot be told apart, and must not kill
   for ever.
4. A death that was put down to one counts against the others no more (`expiration.killers`).
5. Each kind of work is judged by itself: a workflow and its own task always travel together.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from liveness.figures import counted

# Beyond so many times the budget, it is not waited for what runs beside it to finish elsewhere.
PATIENCE: Final = 2
# What an event shows: so many crashes of one piece of work, and so many others that ran beside it. Enough to follow how
# they parted, and some 4 KB.
DEATHS_SHOWN: Final = 10
OTHERS_SHOWN: Final = 20


class Suspect(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of work that ran on a worker which has just died, with that crash counted in.

    `suspects` is how many there were of its kind.
    """

    id: str
    kind: str | None
    queue: str | None
    worker: str
    epoch: int
    reclaim_count: int
    crash_count: int
    suspects: int


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """A crash before this one that counts against a piece of work; `at` is an instant as the events show it."""

    worker: str
    epoch: int
    reason: str
    at: str
    suspects: int


def guilty(suspects: Sequence[Suspect], budget: int) -> list[Suspect]:
    """Return those of one kind of work that are to blame, by the rules above; `budget` is above 0."""
    by_life: Mapping[tuple[str, int], list[Suspect]] = defaultdict(list)
    for suspect in suspects:
        by_life[suspect.worker, suspect.epoch].append(suspect)
    found = []
    for together in by_life.values():
        most = max(suspect.crash_count for suspect in together)
        alone = sum(suspect.crash_count == most for suspect in together) == 1
        found += [
            suspect
            for suspect in together
            if suspect.crash_count >= PATIENCE * budget or (alone and suspect.crash_count == most >= budget)
        ]
    return found


def evidence(
    suspect: Suspect, together: Sequence[Suspect], deaths: Sequence[Death], *, key: str, budget: int
) -> dict[str, Any]:
    """Return what an event says of `suspect` beyond what it says of the life that ended.

    `together` are those known of the same life, most suspect first; `deaths` its former crashes, the newest first.
    """
    others = [other for other in together if other.id != suspect.id]
    return {
        key: suspect.id,
        "kind": suspect.kind,
        "queue": suspect.queue,
        "reclaim_count": suspect.reclaim_count,
        "crash_count": suspect.crash_count,
        "crash_budget": budget,
        "suspects": suspect.suspects,
        "former_crashes": [msgspec.structs.asdict(death) for death in deaths[:DEATHS_SHOWN]],
        "others": [{"id": other.id, "crash_count": other.crash_count} for other in others[:OTHERS_SHOWN]],
    }


def story(suspect: Suspect, deaths: Sequence[Death], *, window: float) -> str:
    """Return in one line why `suspect` is set aside, for whoever finds it in the host's table."""
    died = [f"{suspect.worker} (beside {counted(suspect.suspects - 1, 'other')})"]
    died += [
        f"{death.worker} at {death.at} (beside {counted(death.suspects - 1, 'other')})"
        for death in deaths[:DEATHS_SHOWN]
    ]
    return (
        f"set aside by liveness: {counted(suspect.crash_count, 'worker')} died within {window / 3600:g} h while they "
        f"ran this; the last first: {', '.join(died)}"
    )


def whole(suspects: Sequence[Suspect], most: int) -> Sequence[Suspect]:
    """Return those of `suspects` of which all are there, where there may have been more than `most`.

    They come with the most crashes first, so that others with as many as the last one may be missing.
    """
    if len(suspects) < most:
        return suspects
    return [suspect for suspect in suspects if suspect.crash_count > suspects[-1].crash_count]
