"""Wrong versions of what only workers with habits meet: certificates, fences, crash budgets, leaks."""

import math
from collections.abc import Iterable, Sequence
from typing import Any
from unittest import mock

import msgspec

from liveness import budgets, cases, reports
from liveness.budgets import Suspect
from liveness.client.fence import Fence
from liveness.client.pace import Pace
from liveness.comparing import Compared, Comparing
from liveness.intake import Intake
from liveness.lease import RELEASED, Ending, Lease, Proof
from liveness.leases import LeaseTable
from liveness.messages import decode_goodbye
from liveness.reports import Leak, Report, Reports, Unreported
from liveness.store import Found
from liveness.sweep import Sweep
from liveness.verdicts import Case
from tests.simulation.fenced import Fenced
from tests.simulation.history import History
from tests.simulation.mutant import Family
from tests.simulation.nats import Ear
from tests.simulation.postgres import Expiration, Row

MUTANTS = Family()

# Certificates.


@MUTANTS.wrong("certificate", 124, Intake, "goodbye")
def certificates_are_not_read(self: Intake, subject: str, payload: bytes, _reply: str = "") -> None:
    """Only a worker's own word counts."""
    if decode_goodbye(payload).reason == "released":
        GOODBYE(self, subject, payload)


@MUTANTS.wrong("certificate", 861, LeaseTable, "_mark")
def a_certificate_is_no_proof(self: LeaseTable, lease: Lease, now: float, deadline: float, proof: Proof | None) -> None:
    """A beat that was under way undoes it, and a storm holds it."""
    MARK(self, lease, now, deadline, proof)
    if lease.ending is not None and lease.ending.reason == "died":
        lease.ending.proof = False


@MUTANTS.wrong("certificate", 32, LeaseTable, "release")
def a_certificate_ends_whoever_bears_the_name(
    self: LeaseTable, worker: str, incarnation: str | None, now: float, proof: Proof = RELEASED
) -> bool:
    """The next process, too."""
    return self.end(worker, now, proof) if proof.reason == "died" else RELEASE(self, worker, incarnation, now, proof)


@MUTANTS.wrong("certificate", 536778, Lease, "certified")
def a_certificate_is_of_one_epoch(_self: Lease, _epoch: int, _incarnation: str | None) -> Lease | None:
    """What the process got since is another one's."""
    return None


# Fences.


@MUTANTS.wrong("fence", 57, Fence, "proven")
def a_fence_counts_from_the_answer(self: Fence, _sent: float, now: float) -> None:
    """However long ago the beat was sent."""
    PROVEN(self, now, now)


@MUTANTS.wrong("fence", 3445, Fenced, "said")
def a_fence_counts_what_was_sent(self: Fenced, sent: float) -> None:
    """Whether NATS took it or not."""
    self.prove(self.clock(sent), self.clock(sent))


@MUTANTS.wrong("fence", 54, Fenced, "clock")
def a_clock_stops_while_the_machine_sleeps(self: Fenced, moment: float) -> float:
    """As an event loop's does."""
    return moment - self.slept


MUTANTS.constant("no_time_to_stop_in", "fence", 54, Pace, "window", property(lambda pace: pace.ttl))


@MUTANTS.wrong("fence", 62, Fence, "passed")
def nobody_is_lost(_self: Fence, _now: float) -> bool:
    """A worker believes in itself."""
    return False


@MUTANTS.wrong("absent service", 54, Fenced, "taken")
def only_what_a_service_hears_is_proof(self: Fenced, sent: float, ears: list[Ear]) -> None:
    """Without one, all stop."""
    if ears:
        TAKEN(self, sent, ears)


MUTANTS.constant("a_window_of_half_a_ttl", "absent service", 21, Pace, "window", property(lambda pace: pace.ttl / 2))

# Crash budgets.


@MUTANTS.wrong("budget", 2, cases, "is_crash")
def releases_count(ending: Ending) -> bool:
    """Who leaves while it holds work has crashed."""
    return ending.reason == "released" or IS_CRASH(ending)


@MUTANTS.wrong("budget", 7, cases, "is_crash")
def lapses_in_a_storm_count(ending: Ending) -> bool:
    """What takes many at once counts against what each of them held."""
    return IS_CRASH(ending) or (ending.let_go and ending.reason in cases._CRASHES)


@MUTANTS.wrong("budget", 57, cases, "is_crash")
def who_was_asked_to_go_has_crashed(ending: Ending) -> bool:
    """SIGTERM is a signal like any."""
    return ending.reason == "died" or IS_CRASH(ending)


@MUTANTS.wrong("budget", 321, Sweep, "_orphan_case")
def orphans_count(self: Sweep, found: Found) -> Case:
    """Who was dead when it claimed has died of what it claimed."""
    return msgspec.structs.replace(ORPHAN_CASE(self, found), crash=True)


@MUTANTS.wrong("budget", 22, History, "judge")
def one_crash_less_will_do(self: History, *arguments: Any) -> set[Row]:
    """Off by one."""
    with mock.patch.object(self, "budget", self.budget - 1):
        return JUDGE(self, *arguments)


@MUTANTS.wrong("budget", 41, History, "explain")
def explained_deaths_count_on(_self: History, _row: Row, _end: Expiration, _now: float) -> None:
    """Against all that was there."""


@MUTANTS.wrong("budget", 284, History, "crashes_of")
def crashes_count_for_ever(_self: History, row: Row, _now: float) -> int:
    """The window is ignored."""
    return sum(not end.explained for _, end in row.crashes)


@MUTANTS.wrong("tie", 76, budgets, "guilty")
def all_of_a_tie_are_guilty(suspects: Sequence[Suspect], budget: int) -> list[Suspect]:
    """Whoever was there often enough."""
    return [suspect for suspect in suspects if suspect.crash_count >= budget]


@MUTANTS.wrong("poison", 9, budgets, "guilty")
def nobody_is_guilty(_suspects: Sequence[Suspect], _budget: int) -> list[Suspect]:
    """Poison kills on."""
    return []


@MUTANTS.wrong("poison", 118, budgets, "guilty")
def one_is_guilty_of_all_that_died_at_once(suspects: Sequence[Suspect], budget: int) -> list[Suspect]:
    """Lives are not told apart."""
    return GUILTY(suspects, budget)[:1]


MUTANTS.constant("ties_go_on_for_ever", "poison", 118, budgets, "PATIENCE", 10**6)

# Leaks.


@MUTANTS.wrong("leak", 259, Reports, "_look")
def one_report_suffices(self: Reports, *arguments: Any) -> list[Leak]:
    """What it leaves out is leaked."""
    with mock.patch.object(self, "_leak_grace", -1.0):
        return LOOK(self, *arguments)


@MUTANTS.wrong("leak", 2000, Reports, "_list")
def reports_from_before_the_answer_count(
    self: Reports, report: Report, running: list[str], now: float, _not_before: float, _least_stamp: float
) -> None:
    """They may be older than the claim. For two that NATS accepted a grace apart, that is seen in unit tests only."""
    LIST(self, report, running, now, math.inf, now)


@MUTANTS.wrong("leak", 54976, Reports, "_list")
def reports_are_as_far_apart_as_they_are_heard(
    self: Reports, report: Report, running: list[str], now: float, not_before: float, _least_stamp: float
) -> None:
    """One that comes late makes that longer."""
    LIST(self, report, running, now, not_before, now)


@MUTANTS.wrong("leak", 93, Reports, "_look")
def marks_are_not_compared(self: Reports, lease: Lease, report: Report, rows: Iterable[Unreported]) -> list[Leak]:
    """A row that came back in between, and was claimed again, is the same."""
    found = list(rows)
    for row in found:
        if (former := report.missing.get((row.work, row.id))) is not None:
            former.mark = row.mark
    return LOOK(self, lease, report, found)


@MUTANTS.wrong("leak", 246, Reports, "_look")
def what_was_listed_in_between_is_forgotten(self: Reports, lease: Lease, report: Report, *rows: Any) -> list[Leak]:
    """The last report counts, and the first."""
    report.listed = None
    return LOOK(self, lease, report, *rows)


@MUTANTS.wrong("leak", 4006, reports, "_is_one")
def of_two_each_lists_for_both(_book: LeaseTable, lease: Lease, _report: Report) -> bool:
    """Another process of the name, or a former one, may work on it."""
    return lease.ending is None and lease.epoch is not None


@MUTANTS.wrong("leak", 715735, Reports, "heard_unlisted")
def who_has_no_name_is_one_process(_self: Reports, _lease: Lease) -> None:
    """And what it lists is all that runs in its name."""


@MUTANTS.wrong("forgotten", 0, Comparing, "run_once")
async def nobody_compares(_self: Comparing) -> Compared:
    """What a worker has forgotten stays its own."""
    return Compared()


GOODBYE, RELEASE, MARK = Intake.goodbye, LeaseTable.release, LeaseTable._mark
PROVEN, TAKEN, IS_CRASH, GUILTY, JUDGE = Fence.proven, Fenced.taken, cases.is_crash, budgets.guilty, History.judge
LOOK, LIST = Reports._look, Reports._list
ORPHAN_CASE = Sweep._orphan_case
