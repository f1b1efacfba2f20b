"""Every NATS subject of the contract, built and parsed here and nowhere else. Pure.

The subject is the identity: whoever publishes on `<prefix>.heartbeat.w1` speaks for the worker `w1`, whatever
the payload says. A worker name is everything behind the verb and may contain dots, because host names do.
"""

import re

import msgspec

# The contract's limit. NATS allows subjects of about 4 KiB (its control line); 255 bytes is what host names
# and most `varchar` owner columns are made for, and it bounds what one invented name can cost in memory.
MAX_NAME_BYTES = 255

# Names under it are no workers: the service hears its own echoes there, on the subscription of the heartbeats.
OWN = "$liveness."

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


def event_subject(event_type: str, event_prefix: str = "", *, observed: bool = False) -> str:
    """Return where an event of `event_type` is published: literally there, unless a prefix is set.

    What mode `observe` decided did not happen to the host's tables, so its events are kept apart from those that
    subscribers act on.
    """
    subject = f"observed.{event_type}" if observed else event_type
    return f"{event_prefix}.{subject}" if event_prefix else subject


class Subjects(msgspec.Struct, frozen=True):
    """The subjects of one deployment, told apart from another's by `prefix` (default `liveness`)."""

    prefix: str = "liveness"

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
        """Where a replica of the service speaks to itself, to know that it hears."""
        return self.heartbeat(f"{OWN}echo.{replica}")

    def superseded(self, worker: str) -> str:
        """Where the service tells `worker` that one of its epochs is over."""
        return f"{self.prefix}.superseded.{worker}"

    def api(self, verb: str) -> str:
        """Where commands ask the acting replica to do `verb`."""
        return f"{self.prefix}.api.{verb}"

    @property
    def all_heartbeats(self) -> str:
        """The subscription that hears every worker."""
        return f"{self.prefix}.heartbeat.>"

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
        return subject[len(self.prefix) + 1 :].partition(".")[2]
