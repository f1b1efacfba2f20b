import itertools
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from liveness.expiry import Expiry
from tests.simulation import checker
from tests.simulation.faults import FAULTS
from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.pool import Summary, catch, rule_of, run, run_seed
from tests.simulation.story import Quiet, logging_to, replay

PROCESSES = 2
SCHEDULES, CHUNK = 3_000, 1_500
# Where a mutant is looked for when the schedules have changed, and its own seed does not show it any more.
SEARCHED = 1_000
# Schedules that broke a rule once, of a million or two. Most of them run differently since, and some of them do not.
ONCE_BROKEN = (
    11_763, 15_848, 86_982, 133_513, 138_708, 150_928, 153_647, 171_259, 198_117, 206_789, 213_962, 214_980, 218_317,
    233_649, 252_565, 265_270, 282_997, 288_895, 294_683, 295_392, 299_369, 323_094, 325_468, 343_657, 350_898, 351_117,
    355_300, 355_413, 371_980, 395_592, 481_150, 482_587, 482_633, 507_464, 521_782, 526_393, 527_409, 537_179, 541_266,
    545_272, 548_162, 565_180, 567_259, 571_788, 578_664, 584_844, 588_564, 595_829, 597_767, 602_387, 613_671, 626_243,
    648_075, 673_943, 681_844, 693_605, 701_495, 702_680, 718_968, 760_858, 775_107, 785_575, 792_257, 803_641, 822_777,
    826_453, 829_559, 847_208, 868_457, 878_365, 910_628, 913_358, 914_131, 930_248, 936_711, 956_542, 974_964, 980_161,
    985_672, 987_942, 999_508, 1_025_321,
)  # fmt: skip
# As the checker's first lines name them.
RULES = set(re.findall(r"`([a-z ]+)`", re.sub(r"`[A-Z]+`", "", checker.__doc__ or "")))
# A mutant for the tests that need a story which ends badly.
LATE = MUTANTS["a_ttl_is_eighty_percent"]


@pytest.fixture(scope="module")
def account() -> Summary:
    """What became of all schedules that this run has done."""
    return Summary()


@pytest.mark.parametrize("first", range(0, SCHEDULES, CHUNK))
def test_no_schedule_breaks_a_rule(first: int, account: Summary) -> None:
    """Many seeds at a time: whatever goes wrong, no living work is taken, and no dead work stays."""
    summary = Summary()
    for piece in run([range(first, first + CHUNK)], processes=PROCESSES):
        summary.add(piece.summary)
    account.add(summary)
    assert summary.schedules == CHUNK
    assert not summary.failed, "\n".join(
        f"{sentence}\n    python -m tests.simulation --seed {seed} --story" for seed, sentence in summary.sentences
    )


def test_no_schedule_breaks_a_rule_that_has_done_so_once() -> None:
    """Each was a fault of the service or of the simulation; nearly all before there were habits."""
    runs = itertools.product(ONCE_BROKEN, (True, False))
    with logging_to(Quiet()):
        assert {seed: found for seed, plain in runs if (found := run_seed(seed, plain=plain).violations)} == {}


def test_the_schedules_are_hard(account: Summary) -> None:
    """On average at least 5 workers, 2 replicas, 20 ttls and 3 faults; every kind of fault, and every rule asked."""
    if not account.schedules:
        pytest.skip("no schedules were run")
    assert account.workers / account.schedules >= 5
    assert account.replicas / account.schedules >= 2
    assert account.seconds / account.schedules >= 20 * 10.0
    assert sum(account.faults.values()) / account.schedules >= 3
    assert set(account.faults) == set(FAULTS)
    assert {mutant.rule for mutant in MUTANTS.values()} - set(account.checked) == set()


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=lambda mutant: mutant.name)
def test_a_wrong_version_is_caught(mutant: Mutant) -> None:
    """What the simulation calls right, it would have called wrong: its seed shows it, or another does."""
    found = catch(mutant, itertools.chain([mutant.seed], range(SEARCHED)))
    assert found.seed is not None, f"look for it: python -m tests.simulation --mutants --only {mutant.name}"


def test_every_rule_has_a_mutant_and_they_are_many() -> None:
    """At least 50 wrong versions, no two are the same, and none of the checker's rules is without one."""
    assert len(MUTANTS) >= 50
    assert RULES - {mutant.rule for mutant in MUTANTS.values()} == set()
    places = Counter((mutant.owner, mutant.attribute, mutant.wrong) for mutant in MUTANTS.values())
    assert max(places.values()) == 1


def test_a_seed_tells_the_same_story_twice() -> None:
    """What a seed has shown can be looked at again."""
    (_, once), (_, again) = replay(LATE.seed), replay(LATE.seed)
    assert once == again
    assert len(once) > 50


def test_to_tell_a_story_changes_nothing() -> None:
    """The run that is told is the run that failed."""
    with LATE.applied():
        told, _ = replay(LATE.seed)
        silent = run_seed(LATE.seed)
    told.story = None
    assert told == silent


def test_the_story_contains_the_violation_and_the_cast() -> None:
    """Who reads it sees who was there, what was done to them, and when the rule was broken."""
    with LATE.applied():
        result, lines = replay(LATE.seed)
    story = "\n".join(lines)
    assert result.violations
    for sentence in result.violations:
        assert sentence in story
        assert f"VIOLATION {rule_of(sentence)}: " in story
    assert "w0#" in story
    assert "lease_lapsed" in story


def test_what_nobody_expects_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that raises does not end the run: its seed is told like any other."""

    async def raise_it(_self: Expiry) -> None:
        raise KeyError("w0")

    monkeypatch.setattr(Expiry, "run_once", raise_it)
    violations = run_seed(0).violations
    assert [rule_of(sentence) for sentence in violations] == ["raised"]
    assert "KeyError: 'w0'" in violations[0]


def test_pieces_add_up_in_any_order() -> None:
    """The summary of a long run does not depend on which process was faster."""
    pieces = [piece.summary for piece in run([range(150), range(1_000, 1_050)], processes=PROCESSES)]
    forwards, backwards = Summary(), Summary()
    for piece in pieces:
        forwards.add(piece)
    for piece in reversed(pieces):
        backwards.add(piece)
    forwards.seconds, backwards.seconds = round(forwards.seconds, 3), round(backwards.seconds, 3)
    assert forwards == backwards
    assert forwards.schedules == 200
    assert forwards.late(0.5) <= forwards.late(0.99) <= forwards.late(1.0)


def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_long_run_that_was_interrupted_is_resumed(tmp_path: Path) -> None:
    """What the checkpoint holds is not run again, what was cut short is, and the summary speaks of all."""
    checkpoint = tmp_path / "done"
    assert _command("--schedules", "150", "--checkpoint", str(checkpoint)).returncode == 0
    whole = checkpoint.read_bytes().splitlines(keepends=True)
    checkpoint.write_bytes(whole[0] + whole[1][:100])
    second = _command("--schedules", "200", "--checkpoint", str(checkpoint))
    assert second.returncode == 0, second.stderr
    done = msgspec.json.decode(whole[0])["count"]
    assert f"{done} schedules were done before" in second.stderr
    assert "200 schedules, seeds 0 to 199" in second.stdout
    checkpoint.write_bytes(whole[0].replace(b'"code":"', b'"code":"0'))
    other = _command("--schedules", "200", "--checkpoint", str(checkpoint))
    assert other.returncode == 1
    assert "another version of the code" in other.stderr
