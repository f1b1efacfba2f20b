import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SOON

from .conftest import Child, eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for left-over processes in /proc")

TRANSCRIPT = Path(__file__).parents[2] / "docs" / "transcript.py"
# Half a minute is what the demonstration promises.
DEMO_SECONDS = 30.0


async def start_demo(folder: Path) -> Child:
    """Start `liveness demo` as a pipe's reader sees it, with `folder` for temporary files."""
    return Child(
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "liveness", "demo"),
            # As on a terminal that can do everything: only the pipe says that nobody looks at colours.
            env=os.environ | {"TMPDIR": str(folder), "TERM": "xterm-256color"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    )


def processes_of(folder: Path) -> list[str]:
    """Return the commands of all processes that have to do with `folder`: by arguments, environment or place."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            place = str((entry / "cwd").readlink())
            told = command + (entry / "environ").read_bytes()
        except OSError:
            # It has ended, or it is somebody else's.
            continue
        if os.fsencode(folder) in told or place.startswith(str(folder)):
            found.append(command.replace(b"\0", b" ").decode())
    return found


async def test_demo(tmp_path: Path) -> None:
    """The demonstration succeeds, can be read in a pipe, and leaves nothing behind."""
    demo = await start_demo(tmp_path)
    try:
        await demo.line(lambda line: "start as processes" in line)
        # What is to be gone at the end can be seen now.
        running = " ".join(await asyncio.to_thread(processes_of, tmp_path))
        for program in ("nats-server", "postgres", "liveness.demo.worker"):
            assert program in running
        code = await demo.end(DEMO_SECONDS)
    finally:
        await demo.kill()
    told = "\n".join(demo.lines)
    assert code == 0, told
    assert demo.lines[-1] == "All 24 workflows were completed exactly once."
    assert "\x1b" not in told
    assert "Traceback" not in told
    # The story, in its order.
    story = (
        "SIGKILL for worker-2",
        "event workflow.reclaimed",
        "all 24 workflows are COMPLETED",
        "From SIGKILL to completed elsewhere",
    )
    places = [told.index(words) for words in story]
    assert places == sorted(places)
    times = [
        float(re.search(rf"{title}.*?(\d+\.\d{{3}}) s", told)[1])  # type: ignore[index]
        for title in ("its lease lapsed", "its work was PENDING", "another worker had completed it")
    ]
    assert times == sorted(times)
    assert re.search(r"workflow\.reclaimed was received.*?\d+\.\d{3} s", told)
    assert re.search(r"completed by .*worker-[13]", told)
    # And the README tells it.
    command = [sys.executable, str(TRANSCRIPT), "--check"]
    differs = await asyncio.to_thread(
        lambda: subprocess.run(command, input=told, stdout=subprocess.PIPE, text=True, check=False)
    )
    assert (differs.returncode, differs.stdout) == (0, "")

    assert await asyncio.to_thread(lambda: list(tmp_path.iterdir())) == []
    assert await asyncio.to_thread(processes_of, tmp_path) == []


async def test_killed_demo_leaves_no_process(tmp_path: Path) -> None:
    """A demonstration that is killed takes its servers and its workers along."""
    demo = await start_demo(tmp_path)
    try:
        await demo.line(lambda line: "start as processes" in line)
        running = " ".join(await asyncio.to_thread(processes_of, tmp_path))
        for program in ("nats-server", "postgres", "liveness.demo.worker"):
            assert program in running
        demo.signal(signal.SIGKILL)
        async with asyncio.timeout(SOON):
            await demo.process.wait()
        assert await eventually(lambda: asyncio.to_thread(processes_of, tmp_path), lambda left: not left) == []
    finally:
        await demo.kill()
