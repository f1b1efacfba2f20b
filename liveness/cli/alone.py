"""What commands do when no service runs: `sweep` and `reclaim` listen themselves first, `why` reads what is written."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import click
import msgspec

from liveness.answers import ReclaimAnswer, ReclaimRequest, Swept
from liveness.assembly import Assembly
from liveness.bus import Bus
from liveness.errors import DatabaseAwayError, DatabaseRefusedError, LivenessError, NoServiceError, NotLeaderError
from liveness.facts import WhyAnswer, WhyRequest
from liveness.figures import counted
from liveness.listening import RECONNECT_GRACES
from liveness.reclaim import reclaim, refuse_while_paused
from liveness.settings import Settings
from liveness.share import least_server
from liveness.store import Database, Store
from liveness.why import past

CONNECT_SECONDS = 5.0
# A million leases take six.
RESTORE_SECONDS = 30.0
# How often a listening command looks at the clock.
LOOK_SECONDS = 0.1
# How often it looks whether Postgres is there.
SIGHT_SECONDS = 1.0
# A command that hears nothing, not even itself, for so long gives up: somebody waits for it.
DEAF_SECONDS = 10.0


class DeafError(LivenessError):
    """Nothing can be heard, so nothing can be believed to be silent."""


@contextlib.asynccontextmanager
async def listening(settings: Settings) -> AsyncIterator[Assembly]:
    """Connect the parts of a service that hear, without its duties."""
    database = Database.of(settings, settings.lock_timeout)
    bus = Bus(
        settings.nats_url,
        name="liveness-command",
        access=settings.nats_access,
        least_server=least_server(settings.subjects.share),
    )
    cause = "Postgres does not answer"

    def because(text: str) -> None:
        nonlocal cause
        cause = text

    try:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await database.connect(because)
                store = await database.insist(lambda: Store.open(database, settings), because)
            parts = Assembly(settings, store, bus)
            async with asyncio.timeout(RESTORE_SECONDS):
                await database.insist(parts.restore, because)
            cause = "NATS does not answer"
            async with asyncio.timeout(CONNECT_SECONDS):
                await bus.connect(because)
        except TimeoutError as error:
            raise NoServiceError(f"no service runs, and a command cannot act alone: {cause}") from error
        watching = {asyncio.create_task(each) for each in (bus.keep(), parts.listening.keep(), _keep_in_sight(parts))}
        try:
            yield parts
        finally:
            await parts.leadership.step_down()
            for task in watching:
                task.cancel()
            await asyncio.wait(watching)
    finally:
        await bus.close()
        await database.close()


async def _keep_in_sight(parts: Assembly) -> None:
    # As the renewals of a service do. What is not seen is not counted, and nothing else follows from it.
    while True:
        with contextlib.suppress(DatabaseAwayError, DatabaseRefusedError):
            await parts.store.leader.look()
        await asyncio.sleep(SIGHT_SECONDS)


async def listen(parts: Assembly, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
    """Listen for so many seconds of hearing, or `until` something is so."""
    # Whoever has just connected owes everybody the time to have connected, too.
    seconds = max(seconds, RECONNECT_GRACES * parts.settings.gap_grace) + parts.settings.echo_interval
    ends = parts.hearing.now + seconds
    heard_at = parts.clock()
    click.echo(f"no service answers: listening for {seconds:g} s", err=True)
    while (now := parts.hearing.now) < ends and not until():
        await asyncio.sleep(LOOK_SECONDS)
        if parts.hearing.now > now:
            heard_at = parts.clock()
        elif parts.clock() - heard_at > DEAF_SECONDS:
            raise DeafError(
                f"nothing was heard for {DEAF_SECONDS:g} s, not even ourselves: look after NATS, and, if workers are "
                "divided into shards, whether it divides them into as many as --shard says"
            )
    beats = parts.intake.counts["heartbeats"]
    workers = sum(lease.last_beat is not None for lease in parts.book)
    click.echo(f"heard {counted(beats, 'heartbeat')} of {counted(workers, 'worker')}", err=True)


async def sweep_alone(settings: Settings, *, dry_run: bool) -> Swept:
    """Listen for a full ttl, then end whoever was silent and sweep; the events are published if NATS takes them."""
    async with listening(settings) as parts:
        if not dry_run:
            await refuse_while_paused(parts)
        await listen(parts, settings.heartbeat_timeout)
        now = parts.hearing.now
        lapsed = [lease.worker for lease in parts.book if parts.book.lines.deadline(lease) <= now]
        ended, items = 0, 0
        if not dry_run:
            await lead(parts)
            await parts.grants.run_once()
            expired = await parts.expiry.run_once()
            ended, items = expired.ended, expired.items
        swept = await parts.sweep.run_once(dry_run=dry_run)
        swept.lapsed = lapsed
        swept.ended += ended
        swept.items += items
        if not dry_run:
            swept.items += (await parts.finish.run_once()).items
            await publish(parts)
        return swept


async def reclaim_alone(settings: Settings, request: ReclaimRequest) -> ReclaimAnswer:
    """Listen for the worker's ttl unless forced, then give its work back if it was silent."""
    async with listening(settings) as parts:

        def heard() -> bool:
            lease = parts.book.get(request.worker)
            return lease is not None and lease.last_beat is not None

        if not request.dry_run:
            await refuse_while_paused(parts)
        if not request.force:
            # However many others are heard.
            parts.admission.invite([request.worker], parts.hearing.now)
            lease = parts.book.get(request.worker)
            await listen(parts, settings.heartbeat_timeout if lease is None else lease.ttl, heard)
        if not request.dry_run:
            await lead(parts)
        answer = await reclaim(parts, request)
        if not request.dry_run:
            await publish(parts)
        return answer


async def past_alone(settings: Settings, request: WhyRequest) -> tuple[WhyAnswer, str]:
    """Return what Postgres knows, not put into words yet, and who acts, as it has it.

    Raises DatabaseAwayError when it does not answer soon, CannotStartError, UntellableError.
    """
    async with connected(settings) as database:
        # Who only reads needs no right to write, and tries nothing on the host's rows.
        history = (await Store.open(database, msgspec.structs.replace(settings, mode="observe"))).history
        return await past(history, request), f"as Postgres has it, {await history.acting() or 'nobody'} acts"


@contextlib.asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Database]:
    """Connect to Postgres. Raises DatabaseAwayError when it does not answer soon."""
    database = Database.of(settings, settings.lock_timeout)
    try:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await database.connect()
        except TimeoutError as error:
            raise DatabaseAwayError(
                f"Postgres does not answer within {CONNECT_SECONDS:g} s: check postgres_dsn"
            ) from error
        yield database
    finally:
        await database.close()


async def lead(parts: Assembly) -> None:
    """Become the replica that acts. Raises NotLeaderError, naming it, if there is one that nobody could ask."""
    await parts.leadership.run_once()
    if not await parts.leadership.learn():
        if (trouble := parts.store.leader.trouble) is not None:
            raise NotLeaderError(f"{trouble}, or ask it with --shard")
        seen = await parts.store.leader.seen()
        # Not that it be stopped: whoever cannot be asked may do its duty all the same.
        raise NotLeaderError(
            f"{seen.holder} acts, and did not answer here: is this its NATS (nats_url), and its account there? Its "
            "/readyz says how it is"
        )


async def publish(parts: Assembly) -> None:
    """Publish what is in the outbox now; what cannot be published stays for the service."""
    try:
        await parts.ensure_stream()
        await parts.relay.run_once()
    except LivenessError as error:
        click.echo(f"liveness: the events wait in the outbox: {error}", err=True)
