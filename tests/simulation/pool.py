"""Many seeds over several processes, and one account of them all.

A process runs some thousand seeds and ends: the parts' own structs are kept out of the garbage collector's sight, so
that the books of dead replicas are never freed. All processes are forked from one that has loaded the code once: a run
of hours is a run of one version, whatever happens to the files meanwhile.
"""

import contextlib
import functools
import gc
import hashlib
import itertools
import math
import multiprocessing
import os
import resource
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import msgspec

import liveness
from liveness import intake, listening, sweep
from liveness.messages import decode_heartbeat
from liveness.subjects import name_fault
from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.schedule import Result, Schedule
from tests.simulation.story import Quiet, logging_to

# Seeds that one process runs at most, that one message tells of, and after which garbage is collected: what a few leave
# stays in the processor's cache.
SEEDS_OF_A_PROCESS = 2_500
SEEDS_OF_A_PIECE = 100
SEEDS_OF_A_COLLECTION = 4
# Of one schedule, those that state no uptime: they say the same each time.
BEATS_REMEMBERED = 32
NAMES_REMEMBERED = 100
# Bytes that one process may have. A healthy one has a fiftieth of it.
MOST_MEMORY = 4 * 2**30
# Sentences that are kept of each piece: a broken rule is broken often.
SENTENCES_KEPT = 20
# Lateness is counted in classes of so many seconds.
LATENESS_CLASS = 0.1


def _fingerprint() -> str:
    # What no schedule runs does not count: the wrong versions, and the tests of the simulation itself.
    mine = [
        file
        for file in Path(__file__).parent.glob("*.py")
        if not file.stem.endswith("mutants") and "test_" not in file.stem
    ]
    files = [*Path(liveness.__file__).parent.rglob("*.py"), *mine]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in sorted(files))).hexdigest()[:16]


# Of the code that this process has loaded.
CODE = _fingerprint()


class Summary(msgspec.Struct):
    """What became of some schedules. Those of several pieces add up, in any order."""

    schedules: int = 0
    # Seeds with a violation, and the first sentences.
    failed: list[int] = []
    sentences: list[tuple[int, str]] = []
    violations: dict[str, int] = {}
    faults: dict[str, int] = {}
    checked: dict[str, int] = {}
    workers: int = 0
    replicas: int = 0
    taken: int = 0
    taken_unheard: int = 0
    # Pieces of dead work by their lateness since the death, in classes of LATENESS_CLASS.
    lateness: dict[int, int] = {}
    # Of virtual time.
    seconds: float = 0.0

    def note(self, result: Result) -> None:
        """Add one schedule."""
        late: dict[int, int] = {}
        for lateness in result.lateness:
            kind = round(lateness / LATENESS_CLASS)
            late[kind] = late.get(kind, 0) + 1
        broken: dict[str, int] = {}
        for sentence in result.violations:
            rule = rule_of(sentence)
            broken[rule] = broken.get(rule, 0) + 1
        one = Summary(
            schedules=1,
            failed=[result.seed] if result.violations else [],
            sentences=[(result.seed, sentence) for sentence in result.violations],
            violations=broken,
            faults=result.faults,
            checked=result.checked,
            workers=result.workers,
            replicas=result.replicas,
            taken=result.taken,
            taken_unheard=result.taken_unheard,
            lateness=late,
            seconds=result.seconds,
        )
        self.add(one)

    def add(self, other: "Summary") -> None:
        """Add what became of others."""
        self.schedules += other.schedules
        self.failed = sorted([*self.failed, *other.failed])
        self.sentences = sorted([*self.sentences, *other.sentences])[:SENTENCES_KEPT]
        for mine, theirs in (
            (self.violations, other.violations),
            (self.faults, other.faults),
            (self.checked, other.checked),
        ):
            for name, times in theirs.items():
                mine[name] = mine.get(name, 0) + times
        for kind, times in other.lateness.items():
            self.lateness[kind] = self.lateness.get(kind, 0) + times
        self.workers += other.workers
        self.replicas += other.replicas
        self.taken += other.taken
        self.taken_unheard += other.taken_unheard
        self.seconds += other.seconds

    def late(self, share: float) -> float:
        """Return the lateness in seconds that a `share` (0 to 1) of the dead work did not exceed."""
        left = math.ceil(share * sum(self.lateness.values()))
        for kind in sorted(self.lateness):
            left -= self.lateness[kind]
            if left <= 0:
                return kind * LATENESS_CLASS
        return 0.0


class Piece(msgspec.Struct):
    """What became of the seeds from `first` on, `count` of them, of which version of the code."""

    code: str
    first: int
    count: int
    summary: Summary

    @property
    def seeds(self) -> range:
        """The seeds."""
        return range(self.first, self.first + self.count)


class Catch(msgspec.Struct):
    """By which seed a mutant was caught, None if by none, which rules were broken there, and whether without habits."""

    name: str
    seed: int | None
    rules: list[str]
    plain: bool = False


class CodeChangedError(Exception):
    """What was run before, or beside, was another version of the code."""


class ProcessEndedError(Exception):
    """A process ended in the middle of its seeds."""


def rule_of(sentence: str) -> str:
    """Return the rule that a violation's sentence speaks of."""
    return sentence.partition(":")[0]


def run_seed(seed: int, *, plain: bool = False) -> Result:
    """Run one seed, perhaps without habits. What its parts raise, and nobody expects, is a violation."""
    schedule = Schedule(seed, plain=plain)
    try:
        return schedule.run()
    except Exception as error:  # noqa: BLE001 - the other seeds go on, and this one is told
        schedule.checker.wrong("raised", f"{type(error).__name__}: {error}")
        return Result(
            seed=seed, violations=schedule.checker.violations, faults=schedule.faults, checked=schedule.checker.checked,
            workers=len(schedule.names), replicas=schedule.count, taken=0, taken_unheard=0, lateness=[],
            seconds=schedule.world.now,
        )  # fmt: skip


def run_piece(seeds: range) -> Summary:
    """Run some seeds in this process."""
    summary = Summary()
    with logging_to(Quiet()), reading_once(), counting_tokens():
        for seed in seeds:
            summary.note(run_seed(seed))
            if seed % SEEDS_OF_A_COLLECTION == 0 and not gc.isenabled():
                gc.collect()
    return summary


@contextlib.contextmanager
def reading_once() -> Iterator[None]:
    """Let a beat that several replicas hear at once be read once: the same bytes say the same, and that is frozen.

    And let a name be looked at once.
    """
    with contextlib.ExitStack() as stack:
        for module, function, remembered in (
            (intake, decode_heartbeat, BEATS_REMEMBERED),
            (intake, name_fault, NAMES_REMEMBERED),
            (sweep, name_fault, NAMES_REMEMBERED),
        ):
            once = functools.lru_cache(remembered)(function)
            stack.enter_context(mock.patch.object(module, function.__name__, once))
        yield


@contextlib.contextmanager
def counting_tokens() -> Iterator[None]:
    """Let the tokens of echoes be numbers: they have to differ, and nobody guesses here. The system's are slow."""
    numbers = itertools.count(1)
    counted = SimpleNamespace(
        token_bytes=lambda size: next(numbers).to_bytes(size), token_hex=lambda size: f"{next(numbers):0{2 * size}x}"
    )
    with mock.patch.object(listening, "secrets", counted):
        yield


def catch(mutant: Mutant, seeds: Iterable[int]) -> Catch:
    """Look, in this process, for the first of `seeds` that breaks the mutant's rule, and no rule without the mutant.

    Each is run as it is, and without habits.
    """
    with logging_to(Quiet()):
        for seed, plain in itertools.product(seeds, (False, True)):
            with mutant.applied():
                violations = run_seed(seed, plain=plain).violations
            rules = sorted({rule_of(sentence) for sentence in violations})
            if mutant.rule in rules and not run_seed(seed, plain=plain).violations:
                return Catch(mutant.name, seed, rules, plain)
    return Catch(mutant.name, None, [])


def run(stretches: Sequence[range], *, processes: int, nice: int = 0) -> Iterator[Piece]:
    """Run all seeds of `stretches` over so many processes, and yield the pieces as they come.

    Raises ProcessEndedError and CodeChangedError; processes that still run are killed when this is left.
    """
    jobs = [job for stretch in stretches for job in _jobs(stretch, processes)]
    for message in _spread(_run_job, jobs, processes, nice):
        piece = msgspec.msgpack.decode(message, type=Piece)
        if piece.code != CODE:
            raise CodeChangedError(f"the files changed before a process had loaded them: {CODE}, {piece.code}")
        yield piece


def catch_all(mutants: Sequence[Mutant], seeds: range, *, processes: int, nice: int = 0) -> Iterator[Catch]:
    """Do `catch` with all `mutants`, over so many processes. Raises ProcessEndedError."""
    jobs = [(mutant.name, seeds) for mutant in mutants]
    for message in _spread(_catch_job, jobs, processes, nice):
        yield msgspec.msgpack.decode(message, type=Catch)


def _jobs(stretch: range, processes: int) -> Iterator[range]:
    size = min(SEEDS_OF_A_PROCESS, max(math.ceil(len(stretch) / processes), 1))
    for start in range(0, len(stretch), size):
        yield stretch[start : start + size]


def _spread(work: Callable[[Any], Iterator[object]], jobs: Iterable[Any], processes: int, nice: int) -> Iterator[bytes]:
    """Give each job a process, so many at a time, and yield what they tell."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    waiting = deque(jobs)
    lanes: dict[Connection, tuple[ForkServerProcess, object]] = {}
    try:
        while waiting or lanes:
            while waiting and len(lanes) < processes:
                job = waiting.popleft()
                here, there = context.Pipe(duplex=False)
                process = context.Process(target=_live, args=(work, job, nice, there), daemon=True)
                process.start()
                there.close()
                lanes[here] = (process, job)
            for pipe in wait(list(lanes)):
                assert isinstance(pipe, Connection)
                try:
                    yield pipe.recv_bytes()
                except EOFError:
                    pipe.close()
                    _join(*lanes.pop(pipe))
    finally:
        for process, _ in lanes.values():
            process.kill()
            process.join()


def _join(process: ForkServerProcess, job: object) -> None:
    process.join()
    if process.exitcode:
        raise ProcessEndedError(f"the process of {job} ended: {process.exitcode}")


def _live(work: Callable[[Any], Iterator[object]], job: object, nice: int, pipe: Connection) -> None:
    os.nice(nice)
    # A schedule that never ends grows: better it fails than the machine.
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    gc.collect()
    gc.freeze()
    gc.disable()
    for told in work(job):
        pipe.send_bytes(msgspec.msgpack.encode(told))
        gc.collect()
    pipe.close()


def _run_job(seeds: range) -> Iterator[Piece]:
    for start in range(0, len(seeds), SEEDS_OF_A_PIECE):
        some = seeds[start : start + SEEDS_OF_A_PIECE]
        yield Piece(CODE, some.start, len(some), run_piece(some))


def _catch_job(job: tuple[str, range]) -> Iterator[Catch]:
    name, seeds = job
    # No violation, but a lot of garbage: collected now and then.
    for start in range(0, len(seeds), SEEDS_OF_A_PIECE):
        found = catch(MUTANTS[name], seeds[start : start + SEEDS_OF_A_PIECE])
        gc.collect()
        if found.seed is not None:
            break
    yield found
