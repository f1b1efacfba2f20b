"""The command: `python -m tests.screenshots FOLDER`."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import click

from liveness.embedded import Servers
from liveness.logs import configure
from tests.screenshots.browser import Tab, browser, find, until
from tests.screenshots.stage import Stage, stage

MANY: Final = 10_000
# How high a picture gets (px): the many have a page that goes on.
HIGHEST: Final = 2_400
# Markup, a name that runs from right to left, one that is as long as one gets for a person's eye.
HOSTILE: Final = ("<b>bold</b><script>alert(1)</script>", "\u05e2\u05d5\u05d1\u05d3-7", "gpu-pool-a-" + "x" * 90)


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--many", default=MANY, show_default=True, help="Workers where there are many.")
@click.option("--only", multiple=True, help="Only these scenes: empty, twelve, story, storm, many.")
def main(*, folder: Path, many: int, only: tuple[str, ...]) -> None:
    """Make pictures of the status page in FOLDER, light and dark, narrow and wide, and measure how fast it is."""
    program = find()
    if program is None:
        click.echo("no Chromium here: on Debian, apt-get install chromium", err=True)
        sys.exit(1)
    folder.mkdir(parents=True, exist_ok=True)
    configure("console", "error")
    sys.exit(asyncio.run(_run(program, folder, many, only)))


async def _run(program: str, folder: Path, many: int, only: tuple[str, ...]) -> int:
    async with Servers() as servers, browser(program) as tab:
        scenes = {"empty": _empty, "twelve": _twelve, "storm": _storm}
        for name, scene in scenes.items():
            if not only or name in only or (name == "twelve" and "story" in only):
                async with scene(servers) as shown:
                    await _pictures(tab, folder, name, shown.address)
                    if name == "twelve":
                        await _stories(tab, folder, shown)
                        await _go(tab, shown.address)
                if name == "twelve":
                    await _away(tab, folder)
        if not only or "many" in only:
            async with stage(servers, "many", heartbeat_timeout=600, workflow_stuck_timeout=600) as shown:
                await shown.begin([f"worker-{number:05}" for number in range(many)], 1e6, incarnation="a", ttl=600)
                await shown.until(shown.granted(many))
                await _measure(tab, shown, many)
                await _pictures(tab, folder, "many", shown.address)
    for complaint in tab.complaints:
        click.echo(f"the browser complains: {complaint}")
    return bool(tab.complaints)


async def _pictures(tab: Tab, folder: Path, name: str, address: str) -> None:
    for width in (1400, 390):
        for dark in (False, True):
            await tab.look(width=width, dark=dark)
            await tab.go(address)
            if name not in {"story", "worker"}:
                await tab.value(until("document.getElementById('live').textContent === 'live'"))
            path = folder / f"{name}-{width}-{'dark' if dark else 'light'}.png"
            await tab.picture(path, HIGHEST)
            wide = await tab.value("document.documentElement.scrollWidth")
            click.echo(f"{path.name}{'' if wide <= width else f': {wide} px wide, which is too wide'}")
    if name == "twelve":
        await tab.look(width=1400, dark=False, scripts=False)
        await tab.go(address)
        await tab.picture(folder / "twelve-without-scripts.png", HIGHEST)
        click.echo("twelve-without-scripts.png")
    # It would complain of a service that ends.
    await tab.go("about:blank")


async def _go(tab: Tab, address: str) -> None:
    await tab.look(width=1400, dark=False)
    await tab.go(address)
    await tab.value(until("document.getElementById('live').textContent === 'live'"))


async def _away(tab: Tab, folder: Path) -> None:
    """Show the page of a service that has ended meanwhile; of that alone the browser may complain."""
    await tab.value(until("document.body.classList.contains('stale')"))
    await tab.picture(folder / "away-1400-light.png", HIGHEST)
    click.echo("away-1400-light.png")
    await tab.go("about:blank")
    tab.complaints[:] = [one for one in tab.complaints if "net::ERR_" not in one]


async def _stories(tab: Tab, folder: Path, shown: Stage) -> None:
    work = await shown.host.connection.fetchval("SELECT id FROM liveness.reclaim WHERE worker = 'mailer-2' LIMIT 1")
    await _pictures(tab, folder, "story", f"{shown.address}why/{work}")
    await _pictures(tab, folder, "worker", f"{shown.address}why?worker=mailer-2")


async def _measure(tab: Tab, shown: Stage, many: int) -> None:
    """Say how long the page takes with that many, and how long until a change shows."""
    await tab.look(width=1400, dark=False)
    for _ in range(3):
        began = time.monotonic()
        await tab.go(shown.address)
        await tab.value("new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
        click.echo(f"{many} workers: drawn {time.monotonic() - began:.2f} s after it was asked for")
    for number in range(5):
        name = f"a-newcomer-{number}"
        shows = until(f"document.querySelector('[data-key={name}]')")
        waiting = asyncio.create_task(tab.value(shows))
        await asyncio.sleep(0.37)
        began = time.monotonic()
        await shown.begin([name], 1e6, incarnation="a", ttl=5)
        await waiting
        click.echo(f"{many} workers: a newcomer shows {time.monotonic() - began:.2f} s after its first beat")
        began = time.monotonic()
        waiting = asyncio.create_task(tab.value(until(f"!document.querySelector('[data-key={name}]')")))
        await shown.goodbye(name, "a")
        await waiting
        click.echo(f"{many} workers: it is gone {time.monotonic() - began:.2f} s after its goodbye")


@asynccontextmanager
async def _empty(servers: Servers) -> AsyncIterator[Stage]:
    async with stage(servers, "empty") as shown:
        yield shown


@asynccontextmanager
async def _twelve(servers: Servers) -> AsyncIterator[Stage]:
    settings = {"heartbeat_timeout": 30, "workflow_stuck_timeout": 30, "wedge_after": 3}
    async with stage(servers, "twelve", **settings) as shown:
        await shown.begin(["mailer-1", "render-1", "render-2"], 2, incarnation="6f1c2f4e", ttl=20, interval=5)
        await shown.begin(["mailer-2"], 9, incarnation="0d7be1aa", ttl=2)
        await shown.begin(["billing-3"], 1, incarnation="77aa12c0", ttl=15)
        await shown.host.workflows("mailer-2", 4)
        await shown.host.workflows("billing-3", 2)
        await shown.host.workflows("render-1", 7)
        await shown.host.tasks("mailer-2", 2)
        await shown.until(shown.granted(5))
        await shown.goodbye("billing-3", "77aa12c0")
        await shown.ended(2)
        shown.silence("mailer-2")
        await shown.begin(["mailer-2"], 2, incarnation="9e3c5b11", ttl=20, uptime=0.5)
        await shown.begin(HOSTILE[1:], 2, incarnation="c0ffee00", ttl=45)
        await shown.begin([HOSTILE[0]], 2, incarnation="<i>italic</i>", ttl=45)
        await shown.begin(["etl-1", "etl-2"], 2, incarnation="5d0a9c3e", ttl=60)
        stuck = {"progress": 3, "running": ["a", "b"]}
        await shown.begin(["etl-3"], 1, incarnation="5d0a9c3f", ttl=60, interval=1, **stuck)
        await shown.begin(["render-3"], 1e6, incarnation="b1d0a7c2", ttl=25, interval=2)
        await shown.begin(["render-4"], 2, incarnation="b1d0a7c3", ttl=25)
        await shown.until(lambda: len(shown.service.parts.suspects.suspected) > 0 if shown.service.parts else False)
        yield shown


@asynccontextmanager
async def _storm(servers: Servers) -> AsyncIterator[Stage]:
    async with stage(servers, "storm", heartbeat_timeout=30, workflow_stuck_timeout=30) as shown:
        names = [f"zone-b-{number:02}" for number in range(18)]
        await shown.begin(["zone-a-1", "zone-a-2"], 1, incarnation="6f1c2f4e", ttl=20)
        await shown.begin(names, 1, incarnation="0d7be1aa", ttl=4)
        for name in names[:6]:
            await shown.host.workflows(name, 3)
        await shown.until(shown.granted(20))
        shown.silence(*names)
        await shown.until(lambda: bool(shown.service.troubles()))
        yield shown


if __name__ == "__main__":
    main()
