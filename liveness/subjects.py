"""Every NATS subject of the contract, built and parsed here and nowhere else. Pure.

The subject is the identity: whoever publishes on `<prefix>.heartbeat.w1` speaks for the worker `w1`, whatever
the payload says. A worker name is everything behind the verb and may contain dots, because host names do.
"""

import itertools
import re
from functools import cache

import msgspec

from liveness.share import Share, fnv

# The contract's limit. NATS allows subjects of about 4 KiB (its control line); 255 bytes is what host names
# and most `varchar` owner columns are made for, and it bounds what one invented name can cost in memory.
MAX_NAME_BYTES = 255

# Names under it are no workers: the service hears its own echoes there, on the subscription of the heartbeats.
OWN = "$liveness."

# What commands ask about one worker, or one piece of work, is said to all shards, and its owner answers.
ASKED_OF_ALL = frozenset({"reclaim", "why"})
# How a worker's connection to NATS is called, before the worker's name: the server's advisories know no other.
CONNECTION = "liveness worker "

# A subject token may hold any character but white space; we also refuse the control characters, of which
# U+0000 cannot be stored by Postgres and the others can only deceive a terminal.
_UNFIT = re.compile(r"[\x00-\x20\x7f]")


def name_fault(name: str) -> str | None:
    """Say why `name` cannot be a worker name on the bus, or None if it can.

    A name has 1 to 255 bytes of UTF-8, no white space or control character, no empty token (`a..b`), and no
    token that NATS reads as a wildcard (`*`, `>`). Names that begin with `$liveness.` are the service's own.
    """
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode"
    faults = (
        ("is empty", not name),
        (f"has {length} bytes, more than {MAX_NAME_BYTES}", length > MAX_NAME_BYTES),
        # What stands in the place of bytes that were no UTF-8; different names would look the same.
        ("is not valid UTF-8", "\ufffd" in name),
        ("contains white space or a control character", _UNFIT.search(name) is not None),
        (f"begins with {OWN}, which is the service's own", name.startswith(OWN)),
        ("has an empty token between dots", ".." in f".{name}."),
        ("has a wildcard token", not {"*", ">"}.isdisjoint(name.split("."))),
    )
    return next((text for text, faulty in faults if faulty), None)


@cache
def _hash_of_prefix(prefix: str) -> int:
    return fnv(f"{prefix}.heartbeat.".encode())


def event_subject(event_type: str, event_prefix: str = "", *, observed: bool = False) -> str:
    """Return where an event of `event_type` is published: literally there, unless a prefix is set.

    What mode `observe` decided did not happen to the host's tables, so its events are kept apart from those that
    subscribers act on.
    """
    subject = f"observed.{event_type}" if observed else event_type
    return f"{event_prefix}.{subject}" if event_prefix else subject


class Subjects(msgspec.Struct, frozen=True):
    """The subjects of one deployment, told apart from another's by `prefix` (default `liveness`).

    Of a deployment in shares: as the sidecar of `share` has them.
    """

    prefix: str = "liveness"
    share: Share | None = None

    def hash_of(self, worker: str) -> int:
        """Return the hash by which `worker` is of a share: the NATS servers' own, of its heartbeats' subject.

        What is too long for a name is cut first: it has an owner, too, and costs no more than others.
        """
        return fnv(worker.encode(errors="replace")[:MAX_NAME_BYTES], _hash_of_prefix(self.prefix))

    def kept_hash_of(self, worker: str) -> int:
        """Return the hash as Postgres keeps it: with `mark` before it, for under another prefix it is another."""
        return self.mark << 32 | self.hash_of(worker)

    @property
    def mark(self) -> int:
        """What tells this prefix from others, in 31 bits."""
        return _hash_of_prefix(self.prefix) >> 1

    def owns(self, worker: str) -> bool:
        """Say whether `worker` is of our share."""
        return self.share is None or self.share.owns(self.hash_of(worker))

    def owner_of(self, worker: str) -> str:
        """Return which of the shares, as ours is one, `worker` belongs to; empty where there are none."""
        return "" if self.share is None else f"{self.hash_of(worker) % self.share.count}/{self.share.count}"

    def mapping(self, count: int) -> str:
        """Return what the configuration of every NATS server needs in its `mappings` for so many shares."""
        return f'"{self.prefix}.heartbeat.>": "{self.prefix}.{count}.{{{{partition({count})}}}}.heartbeat.>"'

    def heartbeat(self, worker: str) -> str:
        """Where `worker` says that it lives."""
        return f"{self.prefix}.heartbeat.{worker}"

    def goodbye(self, worker: str) -> str:
        """Where `worker`, or who saw it end, says that its life is over."""
        return f"{self.prefix}.goodbye.{worker}"

    def hello(self, worker: str) -> str:
        """Where `worker` says that a new incarnation of it begins."""
        return f"{self.prefix}.hello.{worker}"

    def probe(self, worker: str) -> str:
        """Where the service asks `worker` whether it is there."""
        return f"{self.prefix}.probe.{worker}"

    def echo(self, replica: str) -> str:
        """Where a replica of the service speaks to itself, to know that it hears.

        Not the same for every `replica`: one that has to come to our share has a number behind it.
        """
        names = (f"{OWN}echo.{replica}{number or ''}" for number in itertools.count())
        return self.heartbeat(next(name for name in names if self.owns(name)))

    def superseded(self, worker: str) -> str:
        """Where the service tells `worker` that one of its epochs is over."""
        return f"{self.prefix}.superseded.{worker}"

    def api(self, verb: str) -> str:
        """Where commands ask the acting replica to do `verb`; of several shares, the one that they name.

        One that concerns a worker or a piece of work goes to all, and its owner answers.
        """
        return self.api_of_all(verb) if verb in ASKED_OF_ALL else f"{self._ours}.api.{verb}"

    def api_of_all(self, verb: str) -> str:
        """Where commands ask who do not know of shares, or whose share it is."""
        return f"{self.prefix}.api.{verb}"

    @property
    def all_heartbeats(self) -> str:
        """The subscription that hears every worker that is ours."""
        return f"{self._ours}.heartbeat.>"

    @property
    def stray_heartbeats(self) -> str:
        """The subscription that hears those by servers which divide the heartbeats when they should not, or do not."""
        return f"{self.prefix}.*.*.heartbeat.>" if self.share is None else f"{self.prefix}.heartbeat.>"

    def stray_worker(self, subject: str) -> str | None:
        """Return the worker name in a subject of `stray_heartbeats`, or None for what is no heartbeat's subject.

        `<prefix>.goodbye.x.heartbeat.y` comes by that subscription, too.
        """
        if self.share is not None:
            return self.worker_of(subject)
        count, index, _, worker = subject[len(self.prefix) + 1 :].split(".", 3)
        return worker if count.isdigit() and index.isdigit() else None

    @property
    def all_goodbyes(self) -> str:
        """The subscription that hears every goodbye."""
        return f"{self.prefix}.goodbye.>"

    @property
    def all_hellos(self) -> str:
        """The subscription that hears every hello."""
        return f"{self.prefix}.hello.>"

    def worker_of(self, subject: str) -> str:
        """Return the worker name in a heartbeat or goodbye subject of this prefix.

        The caller's subscription vouches for the prefix and the verb; what stands behind them is not checked
        here (see `name_fault`).
        """
        ours = f"{self._ours}."
        prefix = ours if self.share is not None and subject.startswith(ours) else f"{self.prefix}."
        return subject[len(prefix) :].partition(".")[2]

    @property
    def _ours(self) -> str:
        return self.prefix if self.share is None else f"{self.prefix}.{self.share.count}.{self.share.index}"
