"""`liveness run --watch`: heartbeats only while the command shows progress."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NoAnswerError

from liveness.embedded import NatsServer
from liveness.messages import Goodbye, Heartbeat
from tests.conftest import SOON, HostTables, delivered
from tests.integration.beats import Spy, spying

from .conftest import Liveness, Run, Serve, eventually

NOTIFY = f"""{sys.executable} -c 'import os, socket
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"STATUS=busy\\nWATCHDOG=1", os.environ["NOTIFY_SOCKET"])'"""
STILL, AGAIN = "no progress for", "progress again"
# As short as a busy machine allows.
PATIENCE = ("--watch-timeout", "0.4")


def on_signal(progress: str) -> str:
    """Return a script that makes progress when it is told to."""
    return f"progress() {{ {progress}\n}}; trap progress USR1; echo up >&2; while :; do sleep 0.01; done"


def from_a_signal_on(progress: str) -> str:
    """Return a script that makes progress again and again once it was told to."""
    return on_signal(f"while :; do {progress}\nsleep 0.05; done")


@pytest.mark.parametrize(
    ("watch", "progress"),
    [
        ("file:{folder}/log", "touch {folder}/log"),
        ("file:{folder}/log", "echo line >> {folder}/log"),
        ("output", "echo line"),
        ("output", "printf . >&2"),
        ("socket", NOTIFY.replace("{", "{{")),
        pytest.param(
            "socket",
            "systemd-notify WATCHDOG=1",
            marks=pytest.mark.skipif(shutil.which("systemd-notify") is None, reason="there is no systemd-notify"),
        ),
    ],
    ids=["a new file", "a longer file", "output", "half a line of errors", "a datagram", "systemd-notify"],
)
async def test_without_progress_nothing_is_said_for_it(
    spy: Spy, run: Run, tmp_path: Path, watch: str, progress: str
) -> None:
    """Neither beats nor answers to probes; with the progress that comes again they go on at once."""
    child = await run(
        from_a_signal_on(progress.format(folder=tmp_path)),
        *("--ttl", "600", "--watch", watch.format(folder=tmp_path), *PATIENCE),
    )
    first = await spy.beat()
    await child.line(lambda line: STILL in line)
    inbox = spy.client.new_inbox()
    answers = await spy.client.subscribe(inbox)
    await spy.client.publish("liveness.probe.w1", b"", reply=inbox)
    # Behind the probe, and heard of.
    await spy.client.publish("liveness.superseded.w1", b"no JSON")
    await child.line(lambda line: "does not decode" in line)
    assert await spy.silent()
    child.signal(signal.SIGUSR1)

    # The interval is two minutes, and an answer would have had a number, too.
    assert (await spy.beat()).seq == (first.seq or 0) + 1
    assert answers.pending_msgs == 0
    await child.line(lambda line: AGAIN in line)
    assert (await spy.client.request("liveness.probe.w1", b"", timeout=SOON)).data
    # Killed, it would leave its socket behind.
    child.signal(signal.SIGTERM)
    await child.end()
    assert sum(AGAIN in line for line in child.lines) == sum(STILL in line for line in child.lines)


async def test_a_command_that_stands_still_is_stopped_in_the_end(spy: Spy, run: Run) -> None:
    """A ttl after its last beat, and not left to hang; what it was not beaten for until then is told."""
    child = await run("echo up; exec sleep 600", "--ttl", "1", "--watch", "output", *PATIENCE)
    await child.line(lambda line: STILL in line)
    while not await spy.silent():
        last = await spy.beat()

    # Five intervals later.
    told = await spy.next()
    assert isinstance(told, Goodbye)
    assert told == Goodbye(incarnation=last.incarnation, uptime=told.uptime, signal=signal.SIGTERM)
    assert await child.end() == 128 + signal.SIGTERM
    assert "stopping it" in child.lines[-1]


async def test_the_work_of_a_command_that_stands_still_goes_back(serve: Serve, host: HostTables, run: Run) -> None:
    """By the ttl, as if it was silent; where it may live on and goes on, it is a worker again."""
    await serve()
    # However late it is heard for the first time, no sweep takes it for stale before.
    await host.worker("w1", silent_for=-60)
    child = await run(
        *(on_signal("echo line"), "--ttl", "1", "--watch", "output", *PATIENCE, "--if-given-up", "continue")
    )
    await child.said("up")
    await eventually(lambda: host.connection.fetchval("SELECT count(*) FROM liveness.epoch WHERE worker = 'w1'"), bool)
    (workflow,) = await host.workflows("w1")

    await eventually(lambda: host.state(workflow), lambda state: state == ("PENDING", None))
    assert await host.connection.fetchval("SELECT reason FROM liveness.expiration") == "lapsed"
    assert await host.worker_status("w1") == ["OFFLINE"]
    child.signal(signal.SIGUSR1)
    await child.line(lambda line: "its work was given away" in line)
    await eventually(lambda: host.worker_status("w1"), lambda status: status == ["ONLINE"])


async def test_progress_keeps_it_beating(spy: Spy, run: Run) -> None:
    """For longer than its patience and its ttl, though nothing but the beats is heard from it."""
    script = "while :; do echo line; sleep 0.01; done"
    child = await run(script, "--ttl", "2.5", "--watch", "output", "--watch-timeout", "2")
    beats = [await spy.beat() for _ in range(7)]
    child.signal(signal.SIGTERM)

    assert [beat.seq for beat in beats] == list(range(1, 8))
    assert await child.end() == 128 + signal.SIGTERM
    assert not any(STILL in line for line in child.lines)


async def test_it_does_not_say_hello_when_nats_comes_back(nats: NatsServer, run: Run) -> None:
    """A hello is a heartbeat, too."""
    child = await run(on_signal("echo line"), "--ttl", "600", "--watch", "output", *PATIENCE)
    await child.line(lambda line: STILL in line)
    await nats.stop()
    await nats.start()
    async with spying(nats.url) as spy:
        hellos = await spy.client.subscribe("liveness.hello.>")

        async def is_there() -> bool:
            try:
                await spy.client.request("liveness.probe.w1", b"", timeout=0.2)
            except NoRespondersError:
                return False
            except NoAnswerError:
                return True
            raise AssertionError("the probe was answered")

        await eventually(is_there, bool)
        assert await spy.silent()
        assert hellos.pending_msgs == 0
        child.signal(signal.SIGUSR1)

        assert isinstance(await spy.next(), Heartbeat)
        await delivered(spy.client)
        assert hellos.pending_msgs == 1


async def test_output_is_handed_on_as_it_is(nats: NatsServer, spy: Spy) -> None:
    """Each stream to its own, all bytes of it, though the command was killed and its end told before they were read."""
    script = (
        "import os, signal\n"
        "os.write(2, bytes(reversed(range(256))))\n"
        # More than we and a pipe hold, and less than we, two pipes and the supervisor.
        "rest = memoryview(bytes(range(256)) * 600)\n"
        "while rest: rest = rest[os.write(1, rest):]\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    process = await watched(nats, sys.executable, "-c", script, stderr=subprocess.PIPE)
    goodbye = await spy.goodbye()
    async with asyncio.timeout(SOON):
        written, complained = await process.communicate()

    assert goodbye.signal == signal.SIGKILL
    assert process.returncode == 128 + signal.SIGKILL
    assert written == bytes(range(256)) * 600
    assert complained == bytes(reversed(range(256)))


async def test_the_order_of_two_streams_into_one_is_kept(nats: NatsServer) -> None:
    """As under 2>&1 without a supervisor."""
    script = "for i in 1 2 3 4 5 6 7 8 9; do echo out$i; echo err$i >&2; done"
    process = await watched(nats, "sh", "-c", script, stderr=subprocess.STDOUT)
    async with asyncio.timeout(SOON):
        written, _ = await process.communicate()

    assert written.decode().split() == [f"{stream}{i}" for i in range(1, 10) for stream in ("out", "err")]


async def test_a_reader_who_leaves_is_found_out_by_the_command(nats: NatsServer) -> None:
    """It ends by SIGPIPE, as it would in a pipe of its own."""
    process = await watched(nats, "yes", stderr=subprocess.PIPE, redirected="| head -1")
    async with asyncio.timeout(SOON):
        written, complained = await process.communicate()

    assert (written, complained) == (b"y\n", b"")


async def watched(nats: NatsServer, *command: str, stderr: int, redirected: str = "") -> asyncio.subprocess.Process:
    """Run `command` with its output watched."""
    return await asyncio.create_subprocess_exec(
        *("sh", "-c", f'"$0" -m liveness run --watch output -- "$@" {redirected}', sys.executable, *command),
        env=os.environ | {"LIVENESS_NATS_URL": nats.url},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        # No more than one read of it is taken before somebody asks.
        limit=1,
    )


async def test_the_socket_is_its_own(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the one around it, which is meant for another process; it is gone with the command."""
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.setenv(name, "1")
    script = "test -S $NOTIFY_SOCKET && echo is $NOTIFY_SOCKET $WATCHDOG_USEC ${WATCHDOG_PID-none}"
    child = await run(script, "--watch", "socket", "--watch-timeout", "1.5")
    path, interval, process = (await child.said("is")).split()

    assert await child.end() == 0
    assert (interval, process) == ("1500000", "none")
    assert not Path(path).parent.exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--watch", "disk"), "'disk' cannot be watched: give file:PATH, output or socket"),
        (("--watch", "file:"), "'file:' cannot be watched"),
        (("--watch-timeout", "3"), "give --watch, too"),
        (("--watch", "output", "--watch-timeout", "0"), "is no number of seconds above 0"),
    ],
)
async def test_what_cannot_be_watched_is_refused(liveness: Liveness, options: tuple[str, ...], complaint: str) -> None:
    """Before anything is run."""
    ran = await liveness("run", *options, "--", "echo", "ran")

    assert (ran.code, ran.out) == (2, "")
    assert complaint in " ".join(ran.err.split())
