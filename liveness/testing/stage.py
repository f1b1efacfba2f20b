"""The stage on which a worker is tested: NATS, the service and the time are played. No network.

Nothing happens by itself on it: the time stands still, and after the first beat there is another when it is asked for.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from liveness.access import ANYBODY, Access
from liveness.client.surroundings import Surroundings
from liveness.link import Link, RawSink, RunSink
from liveness.messages import Goodbye, Heartbeat, Hello, HelloAnswer

OnAnswer = Callable[[bytes | None], None]
_SERVER: Final = "FAKE"


class Stage(Surroundings):
    """What a worker has around it: it notes what it says, and answers its hellos with `epoch`, if one is set."""

    def __init__(self, epoch: int | None) -> None:
        self.now = 0.0
        self.epoch = epoch
        self.ttl: float | None = None
        self.refusal: str | None = None
        self.heartbeats: list[Heartbeat] = []
        self.hellos: list[Hello] = []
        self.goodbyes: list[Goodbye] = []
        self.paused: Final = asyncio.Event()
        """Set when what the worker does about a beat is done."""
        self._worker = ""
        self._sinks: dict[str, RawSink] = {}
        # Who asked last, and was told no more than that nobody is there.
        self._waiting: OnAnswer | None = None

    def clock(self) -> float:
        """Return the time that the test has made it."""
        return self.now

    def link(self, on_refusal: Callable[[str], None]) -> Link:
        """Return a link that leads nowhere."""
        return _StagedLink(self, on_refusal)

    async def pause(self, seconds: float, sooner: asyncio.Event) -> None:  # noqa: ARG002 - the time stands still
        """Wait until the test asks for a beat."""
        self.paused.set()
        await sooner.wait()

    def listen(self, subject: str, sink: RawSink) -> None:
        """Note who hears what comes on `subject`."""
        self._sinks[subject] = sink

    def publish(self, subject: str, message: msgspec.Struct) -> None:
        """Let whoever listens hear it."""
        self._sinks[subject](subject.encode(), b"", b"", msgspec.json.encode(message))

    def hear(self, subject: str, payload: bytes) -> None:
        """Take what the worker says."""
        verb = subject.removesuffix(f".{self._worker}").rpartition(".")[2]
        if verb == "heartbeat":
            self.heartbeats.append(msgspec.json.decode(payload, type=Heartbeat))
        elif verb == "goodbye":
            self.goodbyes.append(msgspec.json.decode(payload, type=Goodbye))

    def greet(self, payload: bytes, on_answer: OnAnswer) -> None:
        """Take a hello, and answer it: who lives there, or that nobody does."""
        self.hellos.append(msgspec.json.decode(payload, type=Hello))
        self._waiting = on_answer
        asyncio.get_running_loop().call_soon(self.answer, on_answer)

    def begin(self, worker: str) -> None:
        """Say who is on it."""
        self._worker = worker

    def answer(self, waiting: OnAnswer | None = None) -> None:
        """Answer the hello that waits, if the test has said how."""
        on_answer = waiting or self._waiting
        if on_answer is None or on_answer is not self._waiting:
            return
        if self.epoch is None and self.refusal is None:
            on_answer(None)
            return
        self._waiting = None
        epoch = None if self.refusal is not None else self.epoch
        incarnation = self.hellos[-1].incarnation
        answer = HelloAnswer(
            worker=self._worker, incarnation=incarnation, epoch=epoch, error=self.refusal, ttl=self.ttl
        )
        if epoch is not None:
            # Of the next life.
            self.epoch = epoch + 1
        on_answer(msgspec.json.encode(answer))


class _StagedLink(Link):
    """Hands on to the stage what is said on it."""

    def __init__(self, stage: Stage, on_refusal: Callable[[str], None]) -> None:
        super().__init__(on_refusal)
        self._stage = stage

    async def open(
        self,
        servers: Sequence[str],  # noqa: ARG002 - of nobody
        name: str,  # noqa: ARG002
        inbox_prefix: str,  # noqa: ARG002
        access: Access = ANYBODY,  # noqa: ARG002
    ) -> None:
        self._server_info = {"server_id": _SERVER}

    def listen(self, subject: str, sink: RawSink, run: RunSink | None = None) -> None:  # noqa: ARG002 - one at a time
        self._stage.listen(subject, sink)

    def send(self, subject: str, payload: bytes, reply: str = "", headers: bytes = b"") -> bool:  # noqa: ARG002
        self._stage.hear(subject, payload)
        return True

    def accept_answers(self) -> None:
        pass

    def ask(self, subject: str, payload: bytes, on_answer: OnAnswer, seconds: float) -> bool:  # noqa: ARG002
        self._stage.greet(payload, on_answer)
        return True

    async def deliver(self, subject: str, payload: bytes, seconds: float) -> None:  # noqa: ARG002
        self._stage.hear(subject, payload)

    async def answer(self, seconds: float, busy_seconds: float = 0.0) -> None:
        pass

    def cut(self) -> None:
        self._mark_lost()

    async def drop(self) -> None:
        self.cut()
