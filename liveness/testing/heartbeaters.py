"""Heartbeaters whose fate a test decides."""

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterator
from typing import ClassVar, Final, cast
from uuid import UUID

from liveness.access import ANYBODY, Access
from liveness.client.heartbeater import Heartbeater
from liveness.client.synchronous import SyncHeartbeater
from liveness.client.thread import LeftError
from liveness.messages import Goodbye, Heartbeat, Superseded
from liveness.testing.stage import Stage

# Where no connection is made to.
NOWHERE: Final = "nats://nowhere.invalid"
# The clock's numbers have no end of digits: what is due at a moment is surely due this much later.
_LATER_SECONDS: Final = 1e-6


class FakeHeartbeater(Heartbeater):
    """A `Heartbeater` without servers, for a test on the worker's event loop.

    Its time stands still but for `elapse`. NATS takes its first beat as it is entered, and another at each `beat`. Its
    hello is answered with `epoch`, and the next life's with one more; with None nobody answers it before `grant`.
    """

    def __init__(  # noqa: PLR0913 - all but the first are named
        self,
        nats_url: str = NOWHERE,
        *,
        worker: str | None = None,
        ttl: float | None = None,
        interval: float | None = None,
        margin: float | None = None,
        incarnation: str | None = None,
        on_lost: Callable[[], object] | None = None,
        on_superseded: Callable[[], object] | None = None,
        prefix: str = "liveness",
        alive: Callable[[], bool] = lambda: True,
        access: Access = ANYBODY,
        epoch: int | None = 1,
    ) -> None:
        self._around = self._stage = Stage(epoch)
        super().__init__(
            nats_url,
            worker=worker,
            ttl=ttl,
            interval=interval,
            margin=margin,
            incarnation=incarnation,
            on_lost=on_lost,
            on_superseded=on_superseded,
            prefix=prefix,
            alive=alive,
            access=access,
        )
        self._stage.begin(self.worker)
        self._was_held: list[str] = []

    @property
    def was_held(self) -> list[str]:
        """The ids of all the work that was ever held, in the order in which it was begun."""
        return self._was_held

    @property
    def heartbeats(self) -> list[Heartbeat]:
        """The beats that it has sent."""
        return self._stage.heartbeats

    @property
    def progress(self) -> int:
        """How often `progressed` was called."""
        return self._holding.progress or 0

    @property
    def goodbye(self) -> Goodbye | None:
        """The last goodbye that it has said: as it left, or as it began again."""
        return self._stage.goodbyes[-1] if self._stage.goodbyes else None

    @property
    def said_goodbye(self) -> bool:
        """Whether it has left, and its work has gone back."""
        return self._left.is_set() and self.goodbye is not None

    def holding(self, work_id: str | UUID) -> contextlib.AbstractContextManager[None]:
        """As the real one; and note it in `was_held`."""
        return self._noted(super().holding(work_id), str(work_id))

    def elapse(self, seconds: float) -> None:
        """Let the time pass, with NATS away or the machine suspended: no beat is taken meanwhile.

        Raises ValueError for time that cannot pass.
        """
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"seconds ({seconds:g}) have to be a number from 0 on: time does not go back")
        self._stage.now += seconds
        self._lookout.look()

    async def beat(self) -> bool:
        """Let it send a beat now; return whether it did. It sends none where `alive` says no, or it is `adopted`."""
        before = self.beats_sent
        if self._task is not None and not self._leaving:
            self._stage.paused.clear()
            self.beat_now()
            # Or until it leaves meanwhile, and sends none any more.
            waiting = [asyncio.ensure_future(event.wait()) for event in (self._stage.paused, self._left)]
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in waiting:
                    one.cancel()
        return self.beats_sent > before

    def lose(self) -> None:
        """Let the time pass until it is lost; `margin` seconds are left to stop in. Raises RuntimeError if adopted."""
        if self.adopted:
            raise RuntimeError("whoever is adopted is not lost by silence, for another beats for it: supersede it")
        self.elapse(self._lookout.due_in + _LATER_SECONDS)

    def supersede(self, new_epoch: int | None = None) -> None:
        """Tell it that its epoch is over, and its work was given away; it lives under `new_epoch`, by default the next.

        Raises RuntimeError before it is entered.
        """
        if not self.connected:
            raise RuntimeError("nobody hears it before the block is entered, or behind it")
        epoch = self.epoch or 0
        new = epoch + 1 if new_epoch is None else new_epoch
        mine = self.incarnation
        notice = Superseded(epoch=epoch, incarnation=mine, new_epoch=new, new_incarnation=mine)
        self._stage.publish(self._subjects.superseded(self.worker), notice)
        self._stage.epoch = new + 1

    def grant(self, epoch: int, ttl: float | None = None) -> None:
        """Answer the hello that waits, else the next one, with an epoch, and the `ttl` (seconds) that is granted."""
        self._stage.epoch, self._stage.ttl, self._stage.refusal = epoch, ttl, None
        self._stage.answer()

    def refuse(self, why: str = "a newer process bears the name") -> None:
        """Refuse the hello that waits, else the next one (of `begin_again`): it is superseded for good."""
        self._stage.refusal = why
        self._stage.answer()

    @contextlib.contextmanager
    def _noted(self, piece: contextlib.AbstractContextManager[None], work_id: str) -> Iterator[None]:
        with piece:
            self._was_held.append(work_id)
            yield


class FakeSyncHeartbeater(SyncHeartbeater):
    """A `SyncHeartbeater` without servers, for a test in any thread. All that is said of `FakeHeartbeater` holds."""

    _of: ClassVar[type[Heartbeater]] = FakeHeartbeater

    def __init__(  # noqa: PLR0913 - all but the first are named
        self,
        nats_url: str = NOWHERE,
        *,
        worker: str | None = None,
        ttl: float | None = None,
        interval: float | None = None,
        margin: float | None = None,
        incarnation: str | None = None,
        on_lost: Callable[[], object] | None = None,
        on_superseded: Callable[[], object] | None = None,
        prefix: str = "liveness",
        alive: Callable[[], bool] = lambda: True,
        access: Access = ANYBODY,
        epoch: int | None = 1,
    ) -> None:
        super().__init__(
            nats_url,
            worker=worker,
            ttl=ttl,
            interval=interval,
            margin=margin,
            incarnation=incarnation,
            on_lost=on_lost,
            on_superseded=on_superseded,
            prefix=prefix,
            alive=alive,
            access=access,
        )
        self._fake._stage.epoch = epoch  # noqa: SLF001 - one heart in two flavours

    @property
    def _fake(self) -> FakeHeartbeater:
        return cast("FakeHeartbeater", self._heart)

    @property
    def was_held(self) -> list[str]:
        """The ids of all the work that was ever held, in the order in which it was begun."""
        return self._fake.was_held

    @property
    def heartbeats(self) -> list[Heartbeat]:
        """The beats that it has sent."""
        return self._fake.heartbeats

    @property
    def progress(self) -> int:
        """How often `progressed` was called."""
        return self._fake.progress

    @property
    def goodbye(self) -> Goodbye | None:
        """The last goodbye that it has said: as it left, or as it began again."""
        return self._fake.goodbye

    @property
    def said_goodbye(self) -> bool:
        """Whether it has left, and its work has gone back."""
        return self._fake.said_goodbye

    def holding(self, work_id: str | UUID) -> contextlib.AbstractContextManager[None]:
        """As the real one; and note it in `was_held`."""
        return self._fake.holding(work_id)

    def elapse(self, seconds: float) -> None:
        """Let the time pass; no beat is taken meanwhile. Raises ValueError for time that cannot pass."""
        self._play(lambda: self._fake.elapse(seconds))

    def beat(self) -> bool:
        """Let it send a beat now; return whether it did."""
        with contextlib.suppress(LeftError):
            return self._thread.ask(self._fake.beat, None)
        return False

    def lose(self) -> None:
        """Let the time pass until it is lost; `margin` seconds are left to stop in. Raises RuntimeError if adopted."""
        self._play(self._fake.lose)

    def supersede(self, new_epoch: int | None = None) -> None:
        """Tell it that its epoch is over, and its work was given away; it lives under `new_epoch`, by default the next.

        Raises RuntimeError before it is entered.
        """
        self._play(lambda: self._fake.supersede(new_epoch))

    def grant(self, epoch: int, ttl: float | None = None) -> None:
        """Answer the hello that waits, else the next one, with an epoch, and the `ttl` (seconds) that is granted."""
        self._play(lambda: self._fake.grant(epoch, ttl))

    def refuse(self, why: str = "a newer process bears the name") -> None:
        """Refuse the hello that waits, else the next one (of `begin_again`): it is superseded for good."""
        self._play(lambda: self._fake.refuse(why))

    def _play(self, act: Callable[[], None]) -> None:
        async def played() -> None:
            act()

        try:
            self._thread.ask(played, None)
        except LeftError:
            # There is no other thread any more.
            act()
