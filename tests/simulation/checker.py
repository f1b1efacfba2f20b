"""What must never happen, judged from outside: by what the processes really did, not by what anybody believed.

Hearable. A worker is hearable by a replica when the NATS server that accepts its beats hands them to the replica's
connection: the same server, or the other one while the route stands. A beat *is heard* when a server accepted it and
put it into the replica's socket, whether the replica has read it or not. A worker is *excused* while it is silent by
its own doing: stalled, cut off from NATS, or looking for a server.

1. `promise`: nothing is taken by silence within a ttl of a beat that was heard, but from who said goodbye. Not
   said, nor the next, of one beside which another of its name was heard later, or while it was not heard for a ttl.
2. `living`: nothing is taken by silence from a process that lives, was hearable for the last 1.6 ttls, and was not
   excused in that time; whatever happened to the replicas, to Postgres, or to their connections. The time in which a
   machine stood still with its clocks is no time. Not claimed of a worker that beats too rarely for a server that
   stands still for so short that no echo tells; nor of one that was listened to for three ttls in vain before it could
   be heard again.
3. `new life`: a restart takes nothing that the newest process of the name claimed while it lives. Not said of what it
   claimed sooner than its beats took to NATS, of which two are as late only where servers stood still twice; or its
   hello, by which alone a replica that was started since believes it. Nor where the hello of another is read late.
4. `conflict`: while two processes of one name live and are both heard, heartbeats take nothing from either. Not said,
   nor the next, of one that a hello has replaced: of who began within a ttl, or as exactly as that can be known.
5. `goodbye`: a goodbye takes nothing from another process of the name that was heard within a ttl before, and lives;
   nor a life whose hello was read before it, in time: its own incarnation's, which has begun again.
6. `storm`: while three names or more behind a broken route live and beat, all of them heard since it broke before, and
   the other server has nobody, nothing is taken from them by silence until the hold has passed; nor by a replica that
   saw the storm, before they can have been heard again. Said of the others when one is silent by itself; not of a
   replica that stood still when the route broke, and dates the last beats apart.
7. `dead work`: when faults have ended, all work of dead processes is back within `BOUND` seconds. Not claimed: work of
   a former process while its name lives on in a process that states no uptime, or that claimed beside a living one, or
   when all replicas that could hear died before they had looked, or that was touched within an echo of the new one's
   beginning, or as long before it as replicas or servers stood still then, or two gaps if replicas stutter from before
   they believed it to the end. A process that a hello has replaced is none by which the name lives on.
8. `hello`: its answer comes when nothing that a former process claimed is RUNNING under the name, but for what was
   touched since another process may have begun that was heard behind the hello: that is a conflict.
9. `epoch`: an epoch ends once, and every open one of a living name was issued once.
10. `term`: what a replica commits, it commits under the term that is current at the commit.
11. `event without commit`, `commit without event`, `event order`: the news are what was committed, all of it, and of
    each worker in the order of the transactions.
12. `finisher`: a claim is finished at most once, and not after it was taken.
13. `memory`: the sweep takes nothing of a process that the replica heard after it had claimed that under an epoch,
    unless replicas or servers have stood still since, who ended its epoch had not heard it since, or it said goodbye.
14. `sweep`: nor anything before the replica has been connected for a ttl, or when it has not been for a while, or while
    a storm holds lapses.
15. `in step`: in the end no lease of the leader stands under an epoch that is over, none that a follower believes dead,
    and none of a follower where another epoch of the name is open.
16. `prompt`: dead work of a name of which no process lives, and whose last one was heard and read after it had claimed
    that, is back within `PROMPT` seconds of that death and of the last fault, or is the sweep's, by `memory`. What a
    storm held may take until all have gone, one a pass; and its whole hold, unless another by the same server lives.
17. `no uptime`: a restart takes nothing where no later process of the name says when it began.
18. `pass`: a storm's hold ends for one worker after the other, where 15 % of its group are no two.
19. `offer`: no verdict but a lapse's takes at once what was claimed after it had been asked for. Not said of what it
    fixed and left to finish: who has not begun another life by then may have put that back and claimed it again.

Of workers with habits (see habits.py) and of what they run, each in a module of its own:

20. `certificate`: what is taken because somebody died is taken from one who has; and what a dead process held is back
    within `CERTIFIED` seconds of its certificate, whatever comes late. Not said of one beside which another may live.
21. `fence`: who goes by its own clock has stopped for as long as its margin when something is taken from it by silence.
    Not said where beats were taken and heard by nobody, nor of a name that another process has, or had a moment ago.
22. `absent service`: nobody is lost, by its own clock, while NATS takes all its beats and it reads the answers.
23. `budget`: what is set aside was there when as many lives crashed as the budget says, within the window and not put
    down to others; what somebody wanted, what a storm let go, what a sweep found as many of as make a storm, and
    orphans are no crashes.
24. `tie`: it was there at more of them than all else of the life that has just ended, or at twice the budget.
25. `poison`: and what was there so often is set aside, and does not go back.
26. `leak`: nothing goes back as leaked that a living process works on, unless another one has its name.
27. `forgotten`: what a process has forgotten, which lists what it runs, is back within `FORGOTTEN` seconds of that, of
    the last fault, and of its epoch's beginning. Not said where it is not the only one of its name, or cannot be told
    from former ones.
"""

from collections import Counter, defaultdict
from typing import Any

from liveness.beginnings import AGREED_WITHIN
from liveness.group import Group
from liveness.lines import MOST_TTLS
from liveness.storms import PASS_SECONDS, PERCENT_OF_A_PASS
from tests.simulation.budget_rules import Budgets
from tests.simulation.certificate_rules import Certificates
from tests.simulation.fence_rules import Fences
from tests.simulation.goodbye_rules import ends_a_later_life
from tests.simulation.leak_rules import Leaks
from tests.simulation.nats import DRAIN, Nats, Server
from tests.simulation.news import News
from tests.simulation.postgres import Claim, Epoch, Expiration, Postgres, Row
from tests.simulation.quiet import out_of_step, waiting
from tests.simulation.replica import SETTINGS, TTL
from tests.simulation.rivals import LATE, is_over_by_hello, is_replaced, may_be_anothers, said_hello_lately
from tests.simulation.storm import has_to_keep, is_signed
from tests.simulation.workers import NEVER, Worker
from tests.simulation.world import World

# Seconds after which work of one that was heard is back when nothing else is wrong: a ttl, what a stamp in a gap may be
# too late, and a few looks; and what a storm adds that has had a sign: a ttl, and a pass for each worker.
PROMPT = TTL + 2 * SETTINGS.max_gap + 4 * SETTINGS.echo_interval
SIGNED = TTL + 8 * SETTINGS.echo_interval
BY_SILENCE = {"lapsed", "stale", "orphaned"}
# Within which a living worker has surely beaten to a replica that could hear it, in seconds.
SURELY = 1.6 * TTL
# What dead work waits for at worst when all is well again: a storm's hold and its passes, three ttls of listening, the
# sweep with its stuck timeout, and a new leader. It is far more than is ever needed for one of them.
BOUND = SETTINGS.storm_max_hold + 3 * TTL + SETTINGS.workflow_stuck_timeout + 2 * 30.0 + 20.0


class Checker:
    """Watches one schedule. `violations` are sentences; `checked` counts how often each rule was asked."""

    def __init__(self, world: World, nats: Nats, postgres: Postgres) -> None:
        self.world, self.nats, self.postgres = world, nats, postgres
        self.violations: list[str] = []
        self.checked: Counter[str] = Counter()
        self.processes: dict[str, list[Worker]] = defaultdict(list)
        self.lateness: list[float] = []
        self.taken_unheard = 0
        # When the last fault that has begun is over.
        self.calm_at = 0.0
        self.replica_deaths: list[float] = []
        # When replicas and servers stood still, and for how long: a beginning may look earlier by as much.
        self.standstills: list[tuple[float, float]] = []
        # Since when replicas stutter, since when all else was well then, and how long two gaps and the next one take.
        self.stutters = (1e9, 0.0, 0.0)
        self._ended: set[tuple[str, int]] = set()
        # Those that a storm has let go, and when it did last, by replica and group.
        self._held: set[tuple[str, int]] = set()
        self._passes: dict[tuple[int, str], float] = {}
        self.news = News(postgres, self.wrong, self.checked)
        others = self.processes, self.wrong, self.checked
        self.certificates = Certificates(*others, postgres.expirations, lambda since: world.now - since)
        self.fences = Fences(world, nats, *others)
        self.budgets = Budgets(world, self._held, postgres.expirations, *others)
        self.leaks = Leaks(world, postgres, *others, calm_at=lambda: self.calm_at)
        nats.unnoticed = SETTINGS.max_gap + SETTINGS.echo_interval
        postgres.on_take = self.take
        postgres.on_end = self.end
        postgres.on_act = self.act
        postgres.on_leak = self.leaks.taken
        postgres.history.on_judged = self.budgets.judged

    def wrong(self, rule: str, what: str) -> None:
        """Note a violation."""
        self.violations.append(f"{rule}: at {self.world.now:.2f} {what}")
        self.world.tell(f"VIOLATION {rule}: {what}")

    def take(self, row: Row, claim: Claim | None, expiration: Expiration) -> None:
        """Judge one row that goes back."""
        # What a reclaim leaves to finish was decided with it.
        replica, _ = expiration.decided
        self.world.tell(f"{replica.name} takes {row.id} of {expiration.worker} ({expiration.reason})")
        if claim is None:
            return
        self.budgets.taken(row, expiration)
        self.checked["finisher"] += 1
        if claim.completed or claim.taken:
            self.wrong("finisher", f"row {row.id} is taken though its claim was over")
        self._by_offer(claim, expiration, row)
        process: Worker = claim.process
        self._by_beginning(process, expiration, row)
        self.certificates.judge(process, claim, expiration, row)
        if expiration.reason in BY_SILENCE:
            self.fences.taken(process, claim, expiration, row)
        if expiration.reason in BY_SILENCE and not self._kept(process, expiration, row):
            return
        if not process.alive:
            self._by_death(process, claim, expiration, row)
        elif not claim.dropped:
            self._from_the_living(process, claim, expiration, row)

    def _from_the_living(self, process: Worker, claim: Claim, expiration: Expiration, row: Row) -> None:
        if expiration.reason in BY_SILENCE:
            self._by_silence(process, *expiration.decided, row)
        elif expiration.reason == "restarted":
            self._by_restart(process, expiration, claim.at, row)
        elif expiration.reason in {"released", "died"}:
            self._by_goodbye(process, claim, expiration, row)

    def _by_goodbye(self, process: Worker, claim: Claim, expiration: Expiration, row: Row) -> None:
        if process.again is not None and expiration.incarnation == process.incarnation:
            # Its own: judged with the end of the life.
            return
        self.checked["goodbye"] += 1
        replica, began = expiration.decided
        heard = [at for at in process.heard_by.get(id(replica.ear), NEVER)[:2] if at > replica.link_up_at]
        # Who was silent for a ttl is over: see incarnations.py.
        known = any(1.0 < began - at < TTL + sum(self.stood_still(at, began)) for at in heard)
        known = known and not self._was_over(process, replica) and began - replica.ear.free_at >= LATE
        # And what it claimed sooner than it was heard may be older than it.
        known = known and claim.at - process.born_at >= max(self.stood_still(process.born_at, began), default=0.0)
        if known and process.style in {"uptime", "hello"}:
            self.wrong("goodbye", f"{process.incarnation} lives and loses {row.id} to another one's goodbye")

    def _by_offer(self, claim: Claim, expiration: Expiration, row: Row) -> None:
        if expiration.reason == "lapsed" or row.id in expiration.remainder:
            return
        self.checked["offer"] += 1
        if claim.at > expiration.decided[1]:
            self.wrong("offer", f"row {row.id} is taken by a verdict that was asked for before it was claimed")

    def _by_beginning(self, process: Worker, expiration: Expiration, row: Row) -> None:
        if expiration.reason != "restarted":
            return
        self.checked["no uptime"] += 1
        later = {one.style for one in self.processes[process.name] if one.number > process.number}
        if later and not {"uptime", "hello"} & later:
            self.wrong("no uptime", f"{row.id} of {process.incarnation} is taken, and nobody says when he began")

    def _by_death(self, process: Worker, claim: Claim, expiration: Expiration, row: Row) -> None:
        self.lateness.append(self.world.now - (process.died_at or 0.0))
        (replica, began), same_name = expiration.decided, self.processes[process.name]
        held = replica.storms.holding or (process.name, expiration.epoch) in self._held
        read = [at for at in process.heard_by.get(id(replica.ear), NEVER)[:2] if at not in replica.ear.lost]
        left = expiration.reason == "orphaned" and self._may_be_left(process, claim, began)
        known = max(read, default=0.0) > claim.at + SETTINGS.echo_interval and not left
        signed = held and is_signed(process, self.processes.values())
        if known and same_name[-1] is process and held == signed and not any(one.alive for one in same_name):
            self.checked["prompt"] += 1
            late = self.world.now - max(self.calm_at, *(one.died_at or 0.0 for one in same_name))
            if late > (PROMPT + SIGNED if signed else PROMPT):
                self.wrong("prompt", f"{row.id} of {process.incarnation} is back {late:.2f} s after all was well")

    def _by_sweep(self, process: Worker, claim: Claim, replica: Any, began: float, row: Row) -> None:
        self.checked["sweep"] += 1
        up_at, down_at = replica.link_at(began)
        until = began if down_at <= up_at else down_at
        if until - up_at < TTL - 0.01 or began - until > 2 * SETTINGS.max_gap + 0.1:
            self.wrong("sweep", f"{row.id} of {process.incarnation} is taken though nobody listened for a ttl")
        for storm in (group.storm for group in replica.storms.groups.values() if group.storm is not None):
            if replica.hearing.real_ago(storm.since, self.world.now) > self.world.now - began + 0.1:
                self.wrong("sweep", f"{row.id} of {process.incarnation} is taken though a storm holds")
        self.checked["memory"] += 1
        # What a verdict has left to finish may go when it was heard twice since.
        ats = *process.heard_by.get(id(replica.ear), NEVER)[:2], process.first_heard.get(id(replica.ear), NEVER[1])
        heard = max((at for at in ats if at <= began), default=NEVER[1])
        if heard > max(claim.at + SETTINGS.echo_interval, up_at) and not self._may_be_left(process, claim, began):
            self.wrong("memory", f"{process.incarnation} was heard, and {row.id} is left to the sweep")

    def _may_be_left(self, process: Worker, claim: Claim, until: float) -> bool:
        # By a late verdict, if anything was missed, or if who gave it had lost it from sight before it claimed.
        ears = [end.decided[0].ear for end in self.postgres.expirations[process.name][-2:-1]]
        unseen = process.said_goodbye or any(process.heard_by.get(id(ear), NEVER)[1] <= claim.at for ear in ears)
        return process.beside or unseen or bool(self.stood_still(claim.at, until)) or self.postgres.is_nameless(claim)

    def _kept(self, process: Worker, expiration: Expiration, row: Row) -> bool:
        replica, began = expiration.decided
        if expiration.reason != "lapsed" and row.claim is not None:
            self._by_sweep(process, row.claim, replica, began, row)
        if is_replaced(process, self.processes[process.name], replica.ear):
            return True
        self.checked["promise"] += 1
        for one in self.processes[process.name]:
            if one.said_goodbye or is_replaced(one, self.processes[one.name], replica.ear):
                continue
            former, heard, again = one.heard_by.get(id(replica.ear), NEVER)
            if heard > began:
                heard = former
            # One that was heard again only after a full ttl was given up in between, and rightly; what it said since
            # may still be on its way to a replica that hears late.
            if began - again < LATE + sum(self.stood_still(again, began)):
                continue
            if 0.0 <= began - heard < TTL - 0.01:
                self.wrong("promise", f"{one.incarnation} was heard {began - heard:.2f} s ago and loses {row.id}")
                return False
        return True

    def _by_silence(self, process: Worker, replica: Any, began: float, row: Row) -> None:
        if is_replaced(process, self.processes[process.name], replica.ear):
            return
        self.checked["living"] += 1
        since = began - SURELY
        since -= process.frozen_for if process.frozen_until > since else 0.0
        mine, theirs = process.mouth.server, replica.ear.server
        elsewhere = mine is not theirs or process.moved_at > since or replica.link_up_at > since
        broken = max(server.broken_at for server in self.nats.servers)
        now_broken = not self.nats.route or any(server.paused or not server.up for server in self.nats.servers)
        unheard = elsewhere and (now_broken or self.nats.route_broken_at > since or broken > since or mine is None)
        former, heard, again = process.heard_by.get(id(replica.ear), NEVER)
        heard = former if heard > began else heard
        hearing, now = replica.hearing, self.world.now
        # Behind a broken route for so long that a new connection owed it nothing more.
        out = heard < now - hearing.real_ago(hearing.now - MOST_TTLS * TTL, now)
        # It was given up rightly, and what it has said since was not read before the verdict.
        unread = again > now - hearing.real_ago(hearing.now, now)
        overtaken = any(self._overtakes(server, process, replica, since) for server in self.nats.servers)
        excused = unheard or overtaken or out or unread
        if process.beating_since < since and process.excused_until < since and not excused:
            self.wrong("living", f"{process.incarnation} lives and beats, and loses {row.id}")
        else:
            self.taken_unheard += 1
        if has_to_keep(process, self.processes.values(), self.nats, replica, began):
            self.wrong("storm", f"{process.incarnation} and all others are behind a broken route; it loses {row.id}")

    def _overtakes(self, server: Server, process: Worker, replica: Any, since: float) -> bool:
        """Say whether an echo may have overtaken a beat when the server went on: see hearing.py."""
        # No echo tells of so short a standstill: one that left just before it, and longer behind the one before if we
        # stood still, too.
        both = replica.paused_at < server.went_on_at and replica.went_on_at > server.paused_at
        unnoticed = SETTINGS.max_gap + (SETTINGS.max_gap if both else SETTINGS.echo_interval)
        waits = process.interval + unnoticed + DRAIN + process.mouth.latency
        return server.went_on_at > since and server.went_on_at - server.paused_at <= unnoticed and waits > TTL

    def _by_restart(self, process: Worker, expiration: Expiration, claimed_at: float, row: Row) -> None:
        replica, began = expiration.decided
        newest = self.processes[process.name][-1]
        self.checked["new life"] += 1
        stood = self.stood_still(process.born_at, began)
        # All of its beats may have been late, and by as much; and what is late by less than a second agrees. Of hellos,
        # one is enough for a replica that has not heard it before, and another one may have answered it meanwhile.
        greets = process.style == "hello" and process.first_heard.get(id(replica.ear), 0.0) > claimed_at
        as_late = [*(stood if greets else stood[:-1]), AGREED_WITHIN + process.mouth.latency] if stood else [0.0]
        if process is newest:
            # Where the hello of another one is read late, and before the beats of this one.
            unread = began - replica.ear.free_at < LATE and said_hello_lately(process, self.processes[process.name])
            if claimed_at - process.born_at >= max(as_late) and not unread:
                self.wrong("new life", f"{process.incarnation} is the newest, and loses {row.id} to a restart")
            return
        self.checked["conflict"] += 1
        ear = id(replica.ear)
        (former, heard, _), others = process.heard_by.get(ear, NEVER), newest.first_heard.get(ear)
        late = newest.style == "hello" or began - replica.ear.free_at < LATE
        if others is None or late or self._was_over(process, replica):
            return
        # What is heard in the moment of the verdict is heard behind it.
        heard = former if heard >= began else heard
        unread = any(since < heard < since + lasted for since, lasted in self.standstills)
        if 0.0 <= began - heard < TTL and heard > others + AGREED_WITHIN and newest.alive and not unread:
            self.wrong("conflict", f"{process.incarnation} and {newest.incarnation} both beat, and {row.id} is taken")

    def _was_over(self, process: Worker, replica: Any) -> bool:
        # Before this verdict, by another one or by a hello: its beats are stale, and it is told so.
        ended = any(one.incarnation == process.incarnation for one in self.postgres.expirations[process.name][:-1])
        same_name, now = self.processes[process.name], self.world.now
        return ended or is_over_by_hello(process, same_name, replica, self.standstills, now)

    def end(self, epoch: Epoch, reason: str) -> None:
        """Judge the end of an epoch."""
        self.checked["epoch"] += 1
        key = (epoch.worker, epoch.epoch)
        if key in self._ended:
            self.wrong("epoch", f"epoch {epoch.epoch} of {epoch.worker} ends twice")
        self._ended.add(key)
        replica, asked = self.postgres.deciding
        lease = replica.book.get(epoch.worker)
        if lease is not None and lease.ending is not None and lease.ending.let_go:
            self._held.add(key)
            self._let_go(id(replica), lease.group or replica.storms._restored, asked)
        elif reason == "lapsed" and (lease is None or lease.ending is None or lease.ending.reason != reason):
            # It was heard again behind the verdict, and what it had been is not known any more.
            self.budgets.unsure.add(key)
        for one in self.processes[epoch.worker]:
            one.superseded = False
            if reason == "released" and one.epoch == epoch.epoch:
                late = ends_a_later_life(one, replica, asked, self.stood_still)
                self.checked["goodbye"] += late is not None
                if late:
                    self.wrong("goodbye", f"{one.incarnation} has begun another life, which its late goodbye ends")
        self.world.tell(f"epoch {epoch.epoch} of {epoch.worker} ends ({reason})")

    def _let_go(self, replica: int, group: Group, asked: float) -> None:
        # Of so few, one in each pass, by hearing time; what Postgres did not take before may come at once.
        former = self._passes.get((replica, group.via), -1e9)
        proven = self._passes[replica, group.via] = self.postgres.proven
        members = max(group.members, 0 if group.storm is None else group.storm.members)
        if self.calm_at < asked - TTL and members * PERCENT_OF_A_PASS < 200:
            self.checked["pass"] += 1
            if proven - former < PASS_SECONDS - 0.01:
                self.wrong("pass", "a storm lets two go at once")

    def act(self, term: int) -> None:
        """Judge a commit of a replica that acts."""
        self.checked["term"] += 1
        if term != self.postgres.term:
            self.wrong("term", f"a commit under term {term}, while it is {self.postgres.term}")

    def hello(self, worker: Worker) -> None:
        """Judge the answer to a hello."""
        self.checked["hello"] += 1
        last, same_name = self.postgres.expirations[worker.name][-1:], self.processes[worker.name]
        for one in same_name:
            over = any(end.reason == "restarted" and end.incarnation == one.incarnation for end in last)
            one.superseded = one.alive and one is not worker and over
        for row in self.postgres.held_by(worker.name):
            if (claim := row.claim) is None or claim.process.alive or claim.at >= worker.born_at:
                # One that lives is a conflict, and no former process.
                continue
            if not may_be_anothers(row.touched, worker, same_name, self.postgres.deciding[0], self.standstills):
                what = f"{row.id} of {claim.process.incarnation} is RUNNING"
                self.wrong("hello", f"{worker.incarnation} is answered while {what}")

    def stood_still(self, since: float, until: float) -> list[float]:
        """Return how long replicas and servers stood still between, the longest last."""
        return sorted(lasted for began, lasted in set(self.standstills) if began < until and began + lasted > since)

    def finish(self, replicas: list[Any]) -> None:
        """Judge what is left at the end."""
        self.checked["in step"] += 1
        for out in out_of_step(self.postgres, replicas):
            self.wrong("in step", out)
        self.checked["dead work"] += 1
        for left in waiting(self):
            self.wrong("dead work", f"{left} is still RUNNING")
        self.leaks.finish()
        self.news.finish()
