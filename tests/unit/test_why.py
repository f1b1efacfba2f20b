"""What Postgres knows and what memory knows are read one after the other, and put together."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from liveness import why as module
from liveness.assembly import Assembly
from liveness.errors import DatabaseAwayError
from liveness.facts import WhyAnswer, WhyRequest
from liveness.store import History
from liveness.why import UntellableError, past, why
from tests.unit.known import WORK_ID, held, move, piece, standing, unheard, waiting


class Read:
    """A history that says something else each time it is read."""

    def __init__(self, *answers: WhyAnswer | Exception) -> None:
        self.answers = list(answers)

    async def of_work(self, work_id: str, limit: int) -> WhyAnswer:
        """Return the next answer."""
        assert (work_id, limit) == (WORK_ID, 20)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def parts(history: Read, *, owns: bool = True) -> Assembly:
    """Return what `why` needs of an assembly."""
    return cast(
        "Assembly",
        SimpleNamespace(store=SimpleNamespace(history=history), subjects=SimpleNamespace(owns=lambda _: owns)),
    )


RUNNING = WhyAnswer(known=True, looked_in=[], pieces=[held(standing())])
BACK = WhyAnswer(known=True, looked_in=[], pieces=[piece(row=waiting(), owner=None, moves=[move()])])


async def test_work_that_goes_back_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lease has gone with it: what was RUNNING a moment ago is read once more."""
    monkeypatch.setattr(module, "standing", lambda *_: unheard())
    history = Read(RUNNING, BACK)
    assert "now PENDING" in (await why(parts(history), [], WhyRequest(work_id=WORK_ID))).sentence

    history = Read(RUNNING, RUNNING)
    assert "RUNNING, owner w9 is up" in (await why(parts(history), [], WhyRequest(work_id=WORK_ID))).sentence


async def test_work_of_one_that_lives_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And that of another share, of which we know nothing."""
    monkeypatch.setattr(module, "standing", lambda *_: standing())
    told = await why(parts(Read(RUNNING)), [], WhyRequest(work_id=WORK_ID))
    assert "owner w9 is alive" in told.sentence
    others: Any = WhyAnswer(known=True, looked_in=[], pieces=[piece()])
    told = await why(parts(Read(others), owns=False), [], WhyRequest(work_id=WORK_ID))
    assert "nobody could say whether it lives (no service was asked)" in told.sentence


async def test_postgres_is_away() -> None:
    """There is nothing to tell, and one line says so."""
    history = cast("History", Read(DatabaseAwayError("ConnectionRefusedError: no answer")))
    with pytest.raises(UntellableError, match=r"^what happened is written in Postgres, which cannot be read: Conn"):
        await past(history, WhyRequest(work_id=WORK_ID))
