"""What whoever asks the service is told when it does not answer: why, and at once where that is known."""

import asyncio
from collections.abc import Callable

import pytest

from liveness.access import Access
from liveness.bus import Bus
from liveness.cli import why
from liveness.errors import ForbiddenError, NoServiceError
from liveness.facts import WhyAnswer, WhyRequest
from liveness.settings import Settings

NO_RESPONDERS = b"NATS/1.0 503\r\n\r\n"


class Server:
    """Stands in for a link, and does what the test says with each question: its subject, and where the answer goes."""

    def __init__(self, act: Callable[["Server", str, str], None]) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.fault: Exception | None = None
        self.bus = Bus("nats://127.0.0.1:4222", access=Access(user="w1", password="x", inbox_prefix="_INBOX.w1"))  # noqa: S106
        self.bus._link = self  # type: ignore[assignment]
        self._act = act
        self._sinks: dict[str, Callable[[bytes, bytes, bytes, bytes], None]] = {}

    def listen(self, subject: str, sink: Callable[[bytes, bytes, bytes, bytes], None]) -> None:
        """Take a subscription."""
        self._sinks[subject] = sink

    def send(self, subject: str, _payload: bytes, reply: str) -> bool:
        """Take a question."""
        self._act(self, subject, reply)
        return True

    def answer(self, subject: str, headers: bytes, payload: bytes) -> None:
        """Deliver."""
        self._sinks[subject](subject.encode(), b"", headers, payload)

    def forbid(self, verb: str, subject: str) -> None:
        """Say what the server says, in the words that nats-py makes of it."""
        self.bus._refused(f'nats: permissions violation for {verb} to "{subject.lower()}"')


async def test_it_is_answered_on_a_subject_that_permissions_can_name_and_nobody_can_guess() -> None:
    """Below the inbox prefix and `command`, another one each time."""
    seen = []

    def act(server: Server, _subject: str, reply: str) -> None:
        seen.append(reply)
        server.answer(reply, b"", b"{}")
        server.answer(reply, b"", b"another")

    bus = Server(act).bus
    assert [await bus.request("liveness.api.why", b"", 1.0) for _ in range(2)] == [b"{}", b"{}"]
    assert [reply.rpartition(".")[0] for reply in seen] == ["_INBOX.w1.command"] * 2
    assert len(set(seen)) == 2


@pytest.mark.parametrize("forbidden", ["question", "answer"])
async def test_a_login_that_may_not_ask_is_told_as_whom_it_asked(forbidden: str) -> None:
    """NATS says so at once; that nobody answered would be found a minute later, and send people the wrong way."""

    def act(server: Server, subject: str, reply: str) -> None:
        if forbidden == "question":
            server.forbid("publish", subject)
        else:
            server.forbid("subscription", reply)

    with pytest.raises(ForbiddenError, match=r"^NATS forbids the user 'w1' .*log in as one who may, as `operator`"):
        await Server(act).bus.request("liveness.api.Status", b"", 60.0)


async def test_that_nobody_listens_nobody_answers_or_the_way_is_lost_are_three_things() -> None:
    """Each is told in other words, since other things are to be done."""

    def nobody(server: Server, _subject: str, reply: str) -> None:
        server.answer(reply, NO_RESPONDERS, b"")

    def silent(server: Server, _subject: str, _reply: str) -> None:
        server.forbid("publish", "liveness.api.status.of.another")

    def gone(server: Server, _subject: str, _reply: str) -> None:
        server.fault = ConnectionError("cut")
        server.lost.set_result(None)

    for act, says in (
        (nobody, "running, and past its start"),
        (silent, "within 0 s: perhaps nobody leads; /readyz of each replica"),
        (gone, "the connection to NATS was lost: cut"),
    ):
        with pytest.raises(NoServiceError, match=says):
            await Server(act).bus.request("liveness.api.status", b"", 0.0)


async def test_why_is_told_by_postgres_where_the_service_may_not_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may read it learns what is written there; nothing is taken by it."""

    async def ask(*_: object) -> WhyAnswer:
        raise ForbiddenError("no")

    async def past(*_: object) -> tuple[WhyAnswer, str]:
        return WhyAnswer(known=False, looked_in=["public.task"]), "as Postgres has it, nobody acts"

    monkeypatch.setattr(why, "ask", ask)
    monkeypatch.setattr(why, "past_alone", past)

    assert "public.task" in (await why.run(Settings(), WhyRequest(work_id="a"))).sentence
