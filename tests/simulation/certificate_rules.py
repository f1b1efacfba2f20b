"""The rule `certificate` of `checker`: who is said to have ended has, and its work is back without a ttl."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from tests.simulation.postgres import Claim, Expiration, Row
from tests.simulation.replica import SETTINGS, TTL
from tests.simulation.workers import Worker

# Seconds after which work of one that is certified dead is back: its transaction, one more for what that left, and the
# ticks before them. Less than what is left of a ttl, nearly always.
CERTIFIED = 2 * SETTINGS.echo_interval + 1.0
# And in which another process of the name may be taken for the one that lives.
DOUBTED = 2 * TTL


class Certificates:
    """Watches the certificates of one schedule. `wrong` takes a rule and a sentence, `checked` counts."""

    def __init__(
        self,
        processes: Mapping[str, Sequence[Worker]],
        wrong: Callable[[str, str], None],
        checked: Counter[str],
        expirations: Mapping[str, Sequence[Expiration]],
        late_by: Callable[[float], float],
    ) -> None:
        self._processes = processes
        self._wrong = wrong
        self._checked = checked
        self._late_by = late_by
        self._expirations = expirations
        # When the last fault that disturbed more than who died of it is over.
        self.disturbed_at = 0.0

    def judge(self, process: Worker, claim: Claim, expiration: Expiration, row: Row) -> None:
        """Judge one row that goes back."""
        same_name = self._processes[process.name]
        if expiration.reason == "died":
            self._checked["certificate"] += 1
            if any(one.alive for one in same_name if one.incarnation == expiration.incarnation):
                self._wrong("certificate", f"{expiration.incarnation} lives, and {row.id} is taken as a dead one's")
        if process.alive or process.supervisor is None:
            return
        replica, _ = expiration.decided
        certified_at = process.supervisor.certified.get(id(replica.ear))
        if certified_at is None or process.beside or same_name[-1] is not process:
            return
        if certified_at in replica.ear.lost or self._waits_behind(process, expiration, certified_at):
            # Nobody read it, or nobody could act upon it: then the ttl finds it, or the sweep.
            return
        # By then it has read what the process said of itself, and does not doubt that no former one lives.
        known_at = process.first_heard.get(id(replica.ear), certified_at)
        if same_name[0] is process:
            known_at += SETTINGS.echo_interval
        else:
            known_at = max(known_at, self.disturbed_at) + DOUBTED
        if known_at < min(certified_at, claim.at + SETTINGS.echo_interval):
            self._checked["certificate"] += 1
            late = self._late_by(max(self.disturbed_at, certified_at))
            if late > CERTIFIED:
                self._wrong("certificate", f"{row.id} of {process.incarnation} is back {late:.2f} s after all knew")

    def _waits_behind(self, process: Worker, expiration: Expiration, certified_at: float) -> bool:
        """Say whether it came before the verdict on a former life, or of one that was given up and not heard since."""
        former = self._expirations[process.name][-2:-1]
        if any(one.at > certified_at for one in former):
            return True
        given_up = any(one.at > process.born_at for one in former)
        return process.lost_work > 0 or (given_up and expiration.reason in {"orphaned", "stale"})
