"""`liveness run`: heartbeats for any command."""

import asyncio
import contextlib
import math
import os
import secrets
import signal
import socket
import sys
from collections.abc import Awaitable, Mapping, Sequence
from typing import Final, NoReturn

import click

from liveness.cli.options import worker_settings_for
from liveness.client import Heartbeater
from liveness.client.command import BY_SIGNAL, CannotRunError, Command, Ended
from liveness.client.identity import IDENTITY
from liveness.client.problems import Problems
from liveness.client.watch import Watch, Watched
from liveness.settings import Settings
from liveness.subjects import name_fault

# All but what cannot be caught, what is ours, what a terminal does to groups, and what the kernel does to a process
# that went wrong.
PASSED_ON: Final = frozenset(signal.valid_signals()) - {
    signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGPIPE,
    signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS,
}  # fmt: skip
# Of those, what ends a run whose command has not begun.
ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
# How long the command waits for its epoch, which comes when all that its predecessor held is back. Without a service it
# begins all the same.
EPOCH_SECONDS: Final = 3.0
# What a command gets that was asked to stop: its work is in other hands, so there is nothing to finish.
STOP_SECONDS: Final = 10.0
# How a watched file is named.
FILE: Final = "file:"


async def run(
    settings: Settings,
    worker: str,
    ttl: float | None,
    arguments: Sequence[str],
    *,
    stop: bool = True,
    watched: Watched | None = None,
    patience: float | None = None,
) -> int:
    """Run the command to its end, or `stop` it when the worker was given up; return the exit status.

    It is beaten for only while what is `watched` of it shows progress within `patience` seconds, else within the ttl.
    """
    good_for = settings.heartbeat_timeout if ttl is None else settings.clamp_ttl(ttl)
    try:
        watch = Watch(worker, watched or Watched(), patience=patience or good_for)
    except OSError as error:
        raise click.ClickException(f"there is no socket to watch: {error.strerror}; TMPDIR names its folder") from error
    command = Command(Problems(f"worker {worker}"))
    loop = asyncio.get_running_loop()
    # By which signal it was told to end, if it was.
    told: asyncio.Future[int] = loop.create_future()

    def pass_on(number: int) -> None:
        if number in ENDING and not told.done():
            told.set_result(number)
        command.pass_on(number)

    for number in PASSED_ON:
        # What was ignored when we began stays so, for the command as well: nohup.
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, pass_on, number)
    try:
        async with Heartbeater(
            settings.nats_url,
            worker=worker,
            ttl=ttl,
            prefix=settings.subject_prefix,
            alive=watch.alive,
            access=settings.nats_access,
        ) as heartbeater:
            await _first(heartbeater.welcome(EPOCH_SECONDS), asyncio.shield(told))
            if told.done():
                return BY_SIGNAL + told.result()
            if heartbeater.refusal is not None:
                raise click.ClickException(f"worker {worker}: {heartbeater.refusal}")
            try:
                environment = {**_without_identity(watch.environment(os.environ)), **heartbeater.identity}
                command.start(arguments, environment, *watch.streams)
            except CannotRunError as error:
                click.echo(f"liveness: {error}", err=True)
                return error.status
            watch.begin(heartbeater.beat_now)
            ended = await _live(command, heartbeater, watch, stop=stop)
            _certify(heartbeater, ended)
            return ended.status
    finally:
        command.close()
        # Its end is told, and what it wrote may have to wait for who reads it: from here on a signal ends us.
        for number in PASSED_ON:
            loop.remove_signal_handler(number)
        watch.close()


async def _live(command: Command, heartbeater: Heartbeater, watch: Watch, *, stop: bool) -> Ended:
    """Return how the command ended, once nothing of it is left."""
    try:
        given_up = heartbeater.lost if stop else asyncio.Event()
        await _first(command.wait(), given_up.wait())
        if not command.over:
            why = heartbeater.loss if watch.alive() else "has stood still until its last beat was good no more"
            click.echo(f"liveness: worker {heartbeater.worker} {why}: stopping it", err=True)
            command.pass_on(signal.SIGTERM)
            # As long as its work is its own, there has to be time left in which to kill all of it.
            await _first(command.wait(), asyncio.sleep(min(STOP_SECONDS, heartbeater.grace / 2 or STOP_SECONDS)))
    finally:
        # Until then it beats: what is left in the background still works under its name.
        await command.clear()
    return await command.wait()


def _without_identity(environment: Mapping[str, str]) -> dict[str, str]:
    # Of another worker, whose command we are: its epoch would be no fence of ours.
    return {name: value for name, value in environment.items() if name not in IDENTITY}


def _certify(heartbeater: Heartbeater, ended: Ended) -> None:
    if ended.signal is not None:
        heartbeater.died(signal=ended.signal)
    elif ended.exit_code:
        heartbeater.died(exit_code=ended.exit_code)


async def _first(*waits: Awaitable[object]) -> None:
    """Wait for whichever comes first."""
    waiting = {asyncio.ensure_future(each) for each in waits}
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


def _named(context: click.Context, _parameter: click.Parameter, value: str | None) -> str:
    # Under another `liveness run` the name in the environment is that one's.
    given = context.get_parameter_source("worker")
    inherited = given is click.core.ParameterSource.ENVIRONMENT and "LIVENESS_INCARNATION" in os.environ
    worker = f"{socket.gethostname()}-{secrets.token_hex(4)}" if value is None or inherited else value
    fault = name_fault(worker)
    if fault is not None:
        raise click.BadParameter(f"{worker!r} {fault}")
    return worker


def _seconds(_context: click.Context, _parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value < math.inf:
        raise click.BadParameter(f"{value:g} is no number of seconds above 0")
    return value


def _watched(_context: click.Context, _parameter: click.Parameter, values: Sequence[str]) -> Watched:
    files = [value.removeprefix(FILE) for value in values if value.startswith(FILE)]
    for value in set(values) - {"output", "socket"} - {FILE + path for path in files if path}:
        raise click.BadParameter(f"{value!r} cannot be watched: give {FILE}PATH, output or socket")
    return Watched(files=files, output="output" in values, socket="socket" in values)


@click.command("run", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--nats-url", help="Where NATS is (LIVENESS_NATS_URL).")
@click.option(
    "--worker", callback=_named, envvar="LIVENESS_WORKER", help="Its name; else the host's and a random part."
)
@click.option(
    "--ttl",
    callback=_seconds,
    type=float,
    help="Seconds that one heartbeat is good for; else the service's heartbeat_timeout.",
)
@click.option(
    "--if-given-up",
    type=click.Choice(["stop", "continue"]),
    default="stop",
    show_default=True,
    help="What to do with a COMMAND whose work was given away while it lived, or is about to be: it is cut off from"
    " NATS. One that hears that itself can continue.",
)
@click.option(
    "--watch",
    "watched",
    callback=_watched,
    multiple=True,
    metavar=f"{FILE}PATH|output|socket",
    help="Beat only while COMMAND touches that file, writes anything, or sends WATCHDOG=1 to $NOTIFY_SOCKET.",
)
@click.option(
    "--watch-timeout",
    "patience",
    callback=_seconds,
    type=float,
    help="Seconds without any of that after which heartbeats are held back; else the ttl.",
)
@click.argument("arguments", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
def command(
    nats_url: str | None,
    worker: str,
    ttl: float | None,
    if_given_up: str,
    watched: Watched,
    patience: float | None,
    arguments: Sequence[str],
) -> None:
    """Run COMMAND, and heartbeat for it from a process of its own.

    Its end is told at once: exit status 0 as a release, anything else as a certificate of death, and its work goes
    back. What is left of it is killed before that, and with this process COMMAND and its process group die, too.
    Signals are passed on, and the exit status is COMMAND's. It finds out who it is: LIVENESS_WORKER,
    LIVENESS_INCARNATION, LIVENESS_EPOCH.

    With --watch, a COMMAND that hangs loses its work as well: after --watch-timeout without progress its heartbeats
    are held back, and a ttl later it is given up and stopped.
    """
    if patience is not None and not watched.anything:
        raise click.UsageError("--watch-timeout is for what --watch watches, and nothing is: give --watch, too")
    settings = worker_settings_for(nats_url=nats_url)
    stop = if_given_up == "stop"
    leave(asyncio.run(run(settings, worker, ttl, arguments, stop=stop, watched=watched, patience=patience)))


def leave(status: int) -> NoReturn:
    """End this process with that exit status, and without taking the interpreter apart.

    That takes some 10 ms of a processor that whoever puts the work back may want: with both on two cores, a quarter of
    the time from a death to its news went there and into the guard's end (28 ms became 21, medians of seven runs each).
    """
    for stream in (sys.stdout, sys.stderr):
        # Nobody reads it any more.
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
