"""`liveness run`: any command as a worker, with a heart in a process of its own."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import msgspec
import pytest

from liveness.embedded import NatsServer
from liveness.messages import Goodbye, Heartbeat, Superseded
from tests.conftest import HostTables
from tests.integration.beats import Spy

from .conftest import Child, Liveness, Run, Serve, _kept, _start, eventually

# Where the machine stands still for a ttl, the beats go on behind that.
UNFENCED = ("--if-given-up", "continue")
# Elsewhere the kernel tells of no orphans, and does not end a process with its parent.
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has subreapers and PR_SET_PDEATHSIG")


def alive(pid: int) -> bool:
    """Whether there is such a process, and it is not only waiting to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def certificate(spy: Spy) -> Goodbye:
    """Return the goodbye, without the incarnation, behind at least one beat of it."""
    beat = await spy.beat()
    goodbye = await spy.goodbye()
    assert goodbye.incarnation == beat.incarnation
    return Goodbye(exit_code=goodbye.exit_code, signal=goodbye.signal)


@pytest.mark.parametrize(
    ("script", "status", "told"),
    [
        ("exit 0", 0, Goodbye()),
        ("exit 3", 3, Goodbye(exit_code=3)),
        ("kill -9 $$", 128 + 9, Goodbye(signal=9)),
        ("kill -15 $$", 128 + 15, Goodbye(signal=15)),
    ],
)
async def test_the_end_of_the_command_is_told_at_once(
    spy: Spy, run: Run, script: str, status: int, told: Goodbye
) -> None:
    """A release for exit code 0, else a certificate with what was seen; the exit status is the command's."""
    child = await run(script, "--ttl", "600")

    assert await certificate(spy) == told
    assert await child.end() == status


async def test_it_beats_while_the_command_is_busy(spy: Spy, run: Run) -> None:
    """With the ttl that was asked for; a loop that never waits does not silence it."""
    child = await run("while :; do :; done", "--ttl", "0.5", *UNFENCED)
    beats = [await spy.beat() for _ in range(5)]

    assert [beat.seq for beat in beats] == [1, 2, 3, 4, 5]
    assert {beat.ttl for beat in beats} == {0.5}
    child.signal(signal.SIGTERM)
    assert await child.end() == 128 + signal.SIGTERM


async def test_signals_are_passed_on(spy: Spy, run: Run) -> None:
    """Those that ask it to end, and its own; what it makes of them is its own affair."""
    child = await run("trap 'echo one' USR1; trap 'echo end; exit 7' TERM; echo up; while :; do sleep 0.01; done")
    await child.said("up")
    child.signal(signal.SIGUSR1)
    await child.said("one")
    child.signal(signal.SIGTERM)

    assert await child.end() == 7
    assert await certificate(spy) == Goodbye(exit_code=7)


async def test_what_the_command_leaves_behind_is_gone_before_its_end_is_told(spy: Spy, run: Run) -> None:
    """Also what ignores every polite word: its work goes back, so nobody may work on it any more."""
    stubborn = "trap '' TERM HUP INT; while :; do sleep 0.01; done"
    child = await run(f'sh -c "{stubborn}" & echo pids $! $$; wait')
    left, leader = map(int, (await child.said("pids")).split())
    assert alive(left)
    os.kill(leader, signal.SIGKILL)

    assert await certificate(spy) == Goodbye(signal=9)
    assert not alive(left)
    assert await child.end() == 128 + 9


@ON_LINUX
@pytest.mark.parametrize("escape", ["timeout 600", "setsid"])
async def test_whoever_left_the_group_is_gone_as_well(spy: Spy, run: Run, escape: str) -> None:
    """It works under the name all the same."""
    child = await run(f"{escape} sh -c 'echo left $$; sleep 600; true' & echo leader $$; wait")
    left, leader = int(await child.said("left")), int(await child.said("leader"))
    os.kill(leader, signal.SIGKILL)

    assert await certificate(spy) == Goodbye(signal=9)
    assert not alive(left)
    assert await child.end() == 128 + 9


@ON_LINUX
async def test_a_dead_child_whom_nobody_buries_does_not_keep_the_supervisor(spy: Spy, run: Run) -> None:
    """It is a member of the group still, and cannot be killed."""
    unburied = "import os, time; os.fork() or os._exit(0); os.setsid(); print('up', flush=True); time.sleep(600)"
    child = await run(f'{sys.executable} -c "{unburied}" & wait')
    await child.said("up")
    child.signal(signal.SIGTERM)

    assert await certificate(spy) == Goodbye(signal=15)
    assert await child.end() == 128 + 15


@ON_LINUX
async def test_the_kernel_ends_the_command_where_the_guard_does_not(run: Run) -> None:
    """The guard stands still when the supervisor is killed."""
    child = await run("echo up; exec sleep 600", "--ttl", "600")
    await child.said("up")
    guard = await guard_of(child)
    os.kill(guard, signal.SIGSTOP)
    try:
        child.signal(signal.SIGKILL)
        assert await child.end() == -signal.SIGKILL
    finally:
        os.kill(guard, signal.SIGKILL)


@ON_LINUX
async def test_the_command_dies_with_its_supervisor(spy: Spy, run: Run) -> None:
    """All of its group, and nobody says goodbye: the silence is found by the ttl."""
    child = await run("sleep 600 & echo up; exec sleep 600", "--ttl", "600")
    await child.said("up")
    child.signal(signal.SIGKILL)

    # Its output ends when nobody is left who holds it.
    assert await child.end() == -signal.SIGKILL
    assert isinstance(await spy.next(), Heartbeat)
    assert await spy.silent()


async def test_a_guard_that_was_killed_is_replaced(spy: Spy, run: Run) -> None:
    """Else what the command has begun would outlive a supervisor that is killed."""
    child = await run("sleep 600 & echo up; exec sleep 600", "--ttl", "600")
    await child.said("up")
    guard = await guard_of(child)
    os.kill(guard, signal.SIGKILL)
    await child.line(lambda line: "the guard was killed" in line)
    assert await guard_of(child) != guard
    child.signal(signal.SIGKILL)

    assert await child.end() == -signal.SIGKILL
    assert isinstance(await spy.next(), Heartbeat)


async def guard_of(child: Child) -> int:
    """Return the process that guards what this one runs.

    It is there as soon as the command is; for a moment after it was begun, the kernel does not tell yet what it runs.
    """
    (guard,) = await eventually(lambda: asyncio.sleep(0, guards_seen(child.process.pid)), bool)
    return guard


def guards_seen(pid: int) -> list[int]:
    """Return those children of a process that the kernel says are guards."""
    children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return [each for each in children if b"guard.py" in Path(f"/proc/{each}/cmdline").read_bytes()]


@pytest.mark.parametrize(("program", "status"), [("no-such-program", 127), ("/etc/hostname", 126)])
async def test_a_command_that_cannot_be_run(spy: Spy, nats: NatsServer, program: str, status: int) -> None:
    """Is told as a shell would, in one line, and is a release: nothing was begun."""
    async with _kept() as children:
        child = Child(
            await _start(["-m", "liveness", "run", "--worker", "w1", "--", program], {"LIVENESS_NATS_URL": nats.url})
        )
        children.append(child)

        assert await child.end() == status
    assert child.lines[-1].startswith(f"liveness: {program} cannot be run: ")
    assert await certificate(spy) == Goodbye()


@pytest.mark.parametrize("option", ["stop", "continue"])
async def test_a_command_whose_work_was_given_away_is_stopped(spy: Spy, run: Run, option: str) -> None:
    """It has no other way to hear of it; one that has can be left alone."""
    script = "trap 'echo asked; exit 5' TERM; echo up; while :; do sleep 0.01; done"
    child = await run(script, "--ttl", "600", "--if-given-up", option)
    await child.said("up")
    notice = Superseded(epoch=7, incarnation=(await spy.beat()).incarnation, new_epoch=9)
    await spy.client.publish("liveness.superseded.w1", msgspec.json.encode(notice))
    await child.line(lambda line: "its epoch 7 is over" in line)
    if option == "continue":
        child.signal(signal.SIGTERM)

    assert await child.end() == 5
    assert (await spy.goodbye()).exit_code == 5
    assert ("stopping it" in "\n".join(child.lines)) == (option == "stop")


async def test_a_name_of_its_own(spy: Spy, nats: NatsServer) -> None:
    """Without one, the host's and a random part, so that two on one host are two workers."""
    async with _kept() as children:
        for _ in range(2):
            children.append(Child(await _start(["-m", "liveness", "run", "true"], {"LIVENESS_NATS_URL": nats.url})))
        for child in children:
            assert await child.end() == 0
    while len({subject for subject in spy.subjects if ".goodbye." in subject}) < 2:
        await spy.next()
    assert all(os.uname().nodename in subject for subject in spy.subjects)


async def test_a_heartbeater_in_the_command_does_not_beat_a_second_time(
    serve: Serve, host: HostTables, run: Run, nats: NatsServer
) -> None:
    """It would be another process of the name, whose hello takes what the first one holds."""
    await serve(max_ttl=600)
    await host.worker("w1")
    inside = (
        "import asyncio, liveness\n"
        "async def main():\n"
        f"    async with liveness.Heartbeater('{nats.url}', ttl=600) as worker:\n"
        "        print('is', worker.worker, worker.epoch, worker.superseded.is_set(), flush=True)\n"
        "asyncio.run(main())\n"
    )
    child = await run(f'exec {sys.executable} -c "{inside}"', "--ttl", "600")
    worker, epoch, superseded = (await child.said("is")).split()

    assert await child.end() == 0
    epochs = [row["epoch"] for row in await host.connection.fetch("SELECT epoch FROM liveness.epoch")]
    assert (worker, [int(epoch)], superseded) == ("w1", epochs, "False")


async def test_one_under_another_has_a_name_and_an_epoch_of_its_own(spy: Spy, nats: NatsServer) -> None:
    """What it finds in its environment is the other's: a goodbye for that name would take living work."""
    outer = {"LIVENESS_WORKER": "w1", "LIVENESS_INCARNATION": "outer", "LIVENESS_EPOCH": "99"}
    inner = ["-m", "liveness", "run", "--", "sh", "-c", 'echo "is $LIVENESS_WORKER-${LIVENESS_EPOCH-none}"']
    async with _kept() as children:
        child = Child(await _start(inner, {"LIVENESS_NATS_URL": nats.url, **outer}))
        children.append(child)
        who = await child.said("is")
        assert await child.end() == 0
    await spy.goodbye()

    assert who.startswith(os.uname().nodename)
    assert who.endswith("-none")
    assert not any(subject.endswith(".w1") for subject in spy.subjects)


async def test_what_was_ignored_stays_ignored(spy: Spy, nats: NatsServer) -> None:
    """As under nohup."""
    inner = "trap 'exit 4' USR1; echo up; while :; do sleep 0.01; done"
    script = f'trap \'\' HUP; exec "$0" -m liveness run --worker w1 -- sh -c "{inner}"'
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", script, sys.executable),
        env=os.environ | {"LIVENESS_NATS_URL": nats.url},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGHUP)
    # Passed on behind the other one.
    process.send_signal(signal.SIGUSR1)

    assert await process.wait() == 4
    assert await certificate(spy) == Goodbye(exit_code=4)


@pytest.mark.parametrize("ttl", ["nan", "inf", "0", "-1"])
async def test_a_ttl_that_is_none_is_refused(liveness: Liveness, ttl: str) -> None:
    """Before anything is run."""
    ran = await liveness("run", "--ttl", ttl, "--", "echo", "ran")
    assert (ran.code, ran.out) == (2, "")
    assert "is no number of seconds above 0" in ran.err


async def test_the_command_knows_who_it_is(serve: Serve, host: HostTables, run: Run) -> None:
    """Its epoch, too: all that a former process of the name held is back by then."""
    await serve()
    await host.worker("w1")
    (workflow,) = await host.workflows("w1")
    child = await run('echo "is $LIVENESS_WORKER $LIVENESS_INCARNATION $LIVENESS_EPOCH"', "--ttl", "60")
    worker, incarnation, epoch = (await child.said("is")).split()

    assert await child.end() == 0
    row = await host.connection.fetchrow("SELECT * FROM liveness.epoch WHERE worker = 'w1' ORDER BY epoch DESC LIMIT 1")
    assert row is not None
    assert (worker, incarnation, int(epoch)) == ("w1", row["incarnation"], row["epoch"])
    assert await host.state(workflow) == ("PENDING", None)


async def test_the_work_of_a_command_that_was_killed_goes_back_at_once(
    serve: Serve, host: HostTables, run: Run
) -> None:
    """Its ttl is ten minutes, and nobody waits for that; the reason says that somebody saw it."""
    await serve(max_ttl=600)
    # However late it is heard for the first time, no sweep takes it for stale before.
    await host.worker("w1", silent_for=-60)
    child = await run("echo pid $$; exec sleep 600", "--ttl", "600")
    pid = int(await child.said("pid"))
    await host.workflows("w1", count=3)
    os.kill(pid, signal.SIGKILL)

    assert await child.end() == 128 + signal.SIGKILL
    await eventually(lambda: host.count("PENDING"), lambda count: count == 3)
    row = await host.connection.fetchrow("SELECT * FROM liveness.expiration WHERE worker = 'w1'")
    assert row is not None
    assert row["reason"] == "died"


# One whose guard tells what it is told, and by whom: the command, before it begins, or the supervisor.
OVERHEARD = """
import asyncio, os
from liveness.client import command
from liveness.client.problems import Problems

class Guard(command._Guard):
    def tell(self, group):
        os.write(1, f"{'one of mine' if group == os.getpid() else group}\\n".encode())
        super().tell(group)

    def dismiss(self):
        os.write(1, b"let go\\n")
        super().dismiss()

async def main():
    of_true = command.Command(Problems("worker w1"))
    of_true.start(["true"], {"PATH": os.defpath})
    await of_true.wait()
    await of_true.clear()
    os.write(1, b"nothing is left\\n")
    of_true.close()

command._Guard = Guard
asyncio.run(main())
"""


async def test_a_guard_is_told_that_nothing_is_to_end_before_it_is_let_go() -> None:
    """The number of a group that is over may be another's by the time at which the guard hears of our own end."""
    async with _kept() as children:
        child = Child(await _start(["-c", OVERHEARD], {}))
        children.append(child)

        assert await child.end() == 0
    assert child.lines == ["one of mine", "0", "nothing is left", "let go", "0"]


async def test_what_was_said_is_out_before_the_supervisor_leaves() -> None:
    """It leaves without taking its interpreter apart, which would have written it out."""
    async with _kept() as children:
        script = "import sys; from liveness.cli.run import leave; print('last words'); leave(5)"
        # Else nothing would wait to be written out.
        child = Child(await _start(["-c", script], {"PYTHONUNBUFFERED": ""}))
        children.append(child)

        assert await child.end() == 5
    assert child.lines == ["last words"]
