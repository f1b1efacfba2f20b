"""`liveness why`: why a piece of work moved, or did not, and how its worker stands."""

import asyncio
import sys

import click
import msgspec
from rich.console import Console
from rich.table import Table

from liveness.cli.alone import past_alone
from liveness.cli.asking import READ_SECONDS, ask
from liveness.cli.options import as_json, print_json, servers, settings_for, shard
from liveness.cli.terminal import console_for, literal
from liveness.errors import CannotStartError, ForbiddenError, LivenessError, NatsAwayError, NoServiceError
from liveness.explanations import told, with_owners
from liveness.facts import ID_LENGTH, TOLD, TOLD_MOST, Owner, Piece, Step, WhyAnswer, WhyRequest, WorkerTold
from liveness.figures import past
from liveness.logs import configure
from liveness.settings import Settings
from liveness.shown import printable

# Evidence is many words: wider than other tables where nobody looks at it on a terminal.
PIPE_COLUMNS = 200


class UnknownError(LivenessError):
    """Nothing is known of what was asked for."""


# Nobody could be asked: Postgres alone tells.
_NOBODY = (NoServiceError, NatsAwayError, ForbiddenError, CannotStartError)


async def run(settings: Settings, request: WhyRequest) -> WhyAnswer:
    """Ask the running service; without one, read what Postgres knows.

    Where workers are divided into shards, the one that answers may not hear the owner: the one that does is asked, too.
    """
    acts = ""
    try:
        answer = await ask(settings, "why", request, WhyAnswer, READ_SECONDS)
    except _NOBODY as error:
        answer, acts = await past_alone(settings, request)
        if request.worker is not None or not isinstance(error, NoServiceError):
            cause = f"{error}; {acts}"
            return told(with_owners(answer, lambda owner: _without(owner, cause)))
        # Of several shards one may be away, and not the one that hears the owner.
    missing = [piece.owner for piece in answer.pieces if piece.owner is not None and piece.owner.standing is None]
    heard = {owner.worker: await _heard(settings, owner, acts) for owner in missing}
    return told(with_owners(answer, lambda owner: heard.get(owner.worker, owner)))


async def _heard(settings: Settings, owner: Owner, acts: str) -> Owner:
    """Return what the shard that hears `owner` says of it; `acts`: who does, if nobody has answered before."""
    # Who asks for a name that no worker can have gets no other answer, and needs none.
    if owner.fault is not None:
        return owner
    try:
        answer = await ask(settings, "why", WhyRequest(worker=owner.worker, limit=0), WhyAnswer, READ_SECONDS)
    except _NOBODY as error:
        return _without(owner, f"{error}; {acts}" if acts else str(error))
    standing = None if answer.worker is None else answer.worker.owner.standing
    return msgspec.structs.replace(owner, standing=standing)


def _without(owner: Owner, cause: str) -> Owner:
    return msgspec.structs.replace(owner, unanswered=cause)


@click.command("why")
@click.argument("work_id", required=False)
@click.option("--worker", help="Tell the story of this worker instead.")
@servers
@shard
@click.option(
    "--limit", type=click.IntRange(1, TOLD_MOST), default=TOLD, show_default=True, help="Moves, or lives, at most."
)
@as_json
def command(*, work_id: str | None, worker: str | None, limit: int, json_output: bool, **overrides: str | None) -> None:
    """Tell why the piece of work WORK_ID moved, or why it did not.

    One sentence first, then what happened in the order of time, with the evidence. Asks the running service, which
    knows who lives; without one, tells what Postgres knows. Exits 1 if nothing is known.
    """
    request = _request(work_id, worker, limit)
    settings = settings_for(**overrides)
    configure(settings.log_format, "warning")
    answer = asyncio.run(run(settings, request))
    if json_output:
        print_json(answer)
        sys.exit(0 if answer.known else 1)
    if not answer.known:
        raise UnknownError(printable(answer.sentence))
    show(answer, console_for(PIPE_COLUMNS))


def show(answer: WhyAnswer, console: Console) -> None:
    """Print the story: of each piece of work, or of the worker, the sentence and the table."""
    parts: list[Piece | WorkerTold] = [*answer.pieces, *([answer.worker] if answer.worker is not None else [])]
    for part in parts:
        console.print(literal(part.sentence), highlight=False, soft_wrap=True)
        if part.steps:
            console.print(table(part.steps))
        if part.more:
            console.print("there was more before that: see --limit")


def _request(work_id: str | None, worker: str | None, limit: int) -> WhyRequest:
    if (work_id is None) == (worker is None):
        raise click.UsageError("name a WORK_ID, or a worker with --worker, and not both")
    asked = work_id if worker is None else worker
    hint = "WORK_ID" if worker is None else "--worker"
    if not asked:
        raise click.BadParameter("is empty", param_hint=hint)
    if len(asked) > ID_LENGTH:
        raise click.BadParameter(f"has more than {ID_LENGTH} characters", param_hint=hint)
    try:
        asked.encode()
    except UnicodeEncodeError as error:
        raise click.BadParameter("is not valid Unicode", param_hint=hint) from error
    return WhyRequest(work_id=work_id, worker=worker, limit=limit)


def table(steps: list[Step]) -> Table:
    """Return the table of what happened, in the order of time."""
    shown = Table()
    for title in ("when (UTC)", "what", "worker", "epoch"):
        shown.add_column(title, no_wrap=title != "worker")
    shown.add_column("evidence")
    for step in steps:
        # Below each other, and the evidence has the room.
        when = f"{step.when.at[:19]}Z\n{past(step.when.ago)}"
        epoch = "-" if step.epoch is None else str(step.epoch)
        shown.add_row(when, *(literal(cell) for cell in (step.what, step.worker or "-", epoch, step.says)))
    return shown
