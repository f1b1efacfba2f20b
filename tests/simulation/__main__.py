"""Run schedules, replay one, or look for the mutants: `python -m tests.simulation --schedules 1000000 --processes 2`.

Exit code 0 only when no rule was broken and, with --mutants, every mutant was caught.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.pool import CODE, CodeChangedError, Piece, Summary, catch_all, run
from tests.simulation.story import replay

PROGRESS_SECONDS = 10.0


@click.command(context_settings={"show_default": True})
@click.option("--schedules", type=click.IntRange(1), default=1_000, help="How many, a seed each.")
@click.option("--from", "first", type=click.IntRange(0), default=0, help="The first seed.")
@click.option("--processes", type=click.IntRange(1), default=2, help="Over so many processes.")
@click.option("--nice", type=click.IntRange(0, 19), default=0, help="By how much others go first.")
@click.option(
    "--checkpoint", type=click.Path(dir_okay=False, path_type=Path), help="Note what is done here, and skip it."
)
@click.option("--seed", type=click.IntRange(0), help="Run this seed alone.")
@click.option("--story", is_flag=True, help="With --seed: tell what happened.")
@click.option("--plain", is_flag=True, help="With --seed: without the habits that its workers may have.")
@click.option(
    "--mutants", is_flag=True, help="Look among the seeds for one that catches each wrong version of the code."
)
@click.option("--only", multiple=True, type=click.Choice(sorted(MUTANTS)), help="With --mutants: only these.")
def main(  # noqa: PLR0913 - a line for each option
    *,
    schedules: int,
    first: int,
    processes: int,
    nice: int,
    checkpoint: Path | None,
    seed: int | None,
    story: bool,
    plain: bool,
    mutants: bool,
    only: tuple[str, ...],
) -> None:
    """Run schedules of the simulation."""
    seeds = range(first, first + schedules)
    try:
        if seed is not None:
            well = _one(seed, story=story, plain=plain)
        elif mutants:
            well = _mutants([MUTANTS[name] for name in only or MUTANTS], seeds, processes, nice)
        else:
            well = _many(seeds, processes, nice, checkpoint)
    except CodeChangedError as error:
        raise click.ClickException(str(error)) from error
    sys.exit(0 if well else 1)


def _one(seed: int, *, story: bool, plain: bool) -> bool:
    result, lines = replay(seed, plain=plain)
    for line in lines if story else result.violations or [f"seed {seed}: no rule was broken"]:
        click.echo(line)
    return not result.violations


def _many(seeds: range, processes: int, nice: int, checkpoint: Path | None) -> bool:
    summary = Summary()
    began = said = time.monotonic()
    former = 0
    todo = [seeds]
    if checkpoint is not None:
        for piece in _noted(checkpoint):
            if piece.first in seeds and piece.seeds[-1] in seeds:
                summary.add(piece.summary)
                todo = [rest for stretch in todo for rest in _without(stretch, piece.seeds)]
        former = summary.schedules
        click.echo(f"{former} schedules were done before", err=True)
    for piece in run(todo, processes=processes, nice=nice):
        summary.add(piece.summary)
        if checkpoint is not None:
            _note(checkpoint, piece)
        now = time.monotonic()
        if now - said >= PROGRESS_SECONDS:
            said = now
            left = (len(seeds) - summary.schedules) * (now - began) / (summary.schedules - former)
            click.echo(
                f"{summary.schedules} of {len(seeds)} schedules, {len(summary.failed)} with violations, "
                f"{left / 60:.0f} min left",
                err=True,
            )
    for line in _account(summary, seeds, time.monotonic() - began):
        click.echo(line)
    return not summary.failed


def _noted(checkpoint: Path) -> Iterator[Piece]:
    lines = checkpoint.read_bytes().splitlines(keepends=True) if checkpoint.exists() else []
    for line in lines:
        if not line.endswith(b"\n"):
            # Cut short by the end of the run that wrote it: the seeds are run again.
            checkpoint.write_bytes(b"".join(lines[:-1]))
            return
        piece = msgspec.json.decode(line, type=Piece)
        if piece.code != CODE:
            raise CodeChangedError(f"{checkpoint} is of another version of the code: {piece.code}; this is {CODE}")
        yield piece


def _note(checkpoint: Path, piece: Piece) -> None:
    with checkpoint.open("ab") as file:
        file.write(msgspec.json.encode(piece) + b"\n")


def _without(stretch: range, done: range) -> Iterator[range]:
    before = range(stretch.start, min(stretch.stop, max(done.start, stretch.start)))
    behind = range(max(stretch.start, min(done.stop, stretch.stop)), stretch.stop)
    yield from (rest for rest in (before, behind) if rest)


def _account(summary: Summary, seeds: range, took: float) -> Iterator[str]:
    many = summary.schedules or 1
    faults = sum(summary.faults.values())
    yield f"{summary.schedules} schedules, seeds {seeds.start} to {seeds.stop - 1}, code {CODE}, {took:.0f} s"
    yield (
        f"  {summary.workers / many:.1f} workers, {summary.replicas / many:.1f} replicas, {faults / many:.1f} faults "
        f"each; {summary.seconds / many:.0f} s of virtual time each, {summary.seconds / 86_400:.1f} days in all"
    )
    yield f"  {summary.taken} pieces of work taken, {summary.taken_unheard} of them from the living who were not heard"
    yield (
        f"  dead work was back after {summary.late(0.5):.1f} s (half of it), {summary.late(0.99):.1f} s (99 %), "
        f"{summary.late(1.0):.1f} s (the last)"
    )
    yield f"  {faults} faults: {_counted(summary.faults)}"
    yield f"  {sum(summary.checked.values())} times a rule was asked: {_counted(summary.checked)}"
    if not summary.failed:
        yield "no rule was broken"
        return
    broken = sum(summary.violations.values())
    yield f"{broken} violations in {len(summary.failed)} schedules: {_counted(summary.violations)}"
    told: set[int] = set()
    for seed, sentence in summary.sentences:
        yield f"  seed {seed}: {sentence}"
        if seed not in told:
            told.add(seed)
            yield f"    python -m tests.simulation --seed {seed} --story"


def _counted(times: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(times.items())) or "none"


def _mutants(mutants: list[Mutant], seeds: range, processes: int, nice: int) -> bool:
    caught = 0
    click.echo(f"{'mutant':<50} {'rule':<22} {'caught by seed':>14}  {'rules broken there'}")
    for catch in catch_all(mutants, seeds, processes=processes, nice=nice):
        mutant = MUTANTS[catch.name]
        caught += catch.seed is not None
        changed = "" if catch.seed == mutant.seed else f"  (it says {mutant.seed})"
        changed += " (--plain)" if catch.plain else ""
        seed = "NOT CAUGHT" if catch.seed is None else str(catch.seed)
        click.echo(f"{mutant.name:<50} {mutant.rule:<22} {seed:>14}  {', '.join(catch.rules)}{changed}")
    click.echo(f"{caught} of {len(mutants)} mutants caught, by seeds {seeds.start} to {seeds.stop - 1}")
    return caught == len(mutants)


if __name__ == "__main__":
    main()
