"""The rules about accounts: Postgres, the stream, the host and the workers tell the same."""

from collections import Counter, defaultdict

from tests.outages.fates import Found, decision, is_taken
from tests.outages.history import History, clock


def epochs(history: History) -> Found:
    """An epoch ends once and says why; a name has one open epoch at most."""
    ended = {(row["worker"], row["epoch"]): row for row in history.epochs if row["ended_at"] is not None}
    expired = {(row["worker"], row["epoch"]): row for row in history.expirations}
    for key in sorted(ended.keys() ^ expired.keys()):
        row = ended.get(key) or expired[key]
        has, lacks = ("an end", "expiration") if key in ended else ("an expiration", "end")
        at = row.get("ended_at") or row["expired_at"]
        yield at, f"epoch {key[1]} of {key[0]} has {has} at {clock(at)} and no {lacks}"
    for key, row in expired.items():
        if row["finished_at"] is None:
            yield row["expired_at"], f"a reclaim was not finished: {decision(history, *key)}"
    for worker, count in Counter(row["worker"] for row in history.epochs if row["ended_at"] is None).items():
        if count > 1:
            yield history.at, f"{worker} has {count} open epochs"


def endings(history: History) -> Found:
    """The stream says of each epoch that ended, and of no other, that it ended, once.

    But not of one that was opened for an orphan's sake: its owner was told of when it ended, or was never known.
    """
    expired = {(row["worker"], row["epoch"]): row for row in history.expirations}
    told = defaultdict(list)
    for event in history.events:
        if event["type"] in ("worker.expired", "worker.released"):
            told[event["data"]["worker"], event["data"]["epoch"]].append(event["at"])
    for key, times in told.items():
        if key not in expired:
            at = times[0]
            yield at, f"the stream says that epoch {key[1]} of {key[0]} ended ({clock(at)}), and Postgres does not"
    for key, row in expired.items():
        if len(told[key]) != (row["reason"] != "orphaned"):
            times = [clock(at) for at in told[key]]
            yield row["expired_at"], f"the stream says at {times} that an epoch ended: {decision(history, *key)}"


def events(history: History) -> Found:
    """Each event stands in the stream once, and each reclaim has one."""
    by_id = defaultdict(list)
    told = defaultdict(list)
    for event in history.events:
        by_id[event["id"]].append(event)
        if event["type"] == "workflow.reclaimed":
            data = event["data"]
            told[data["workflow_id"], data["former_worker"], data["epoch"]].append(event)
    for event_id, same in by_id.items():
        if len(same) > 1:
            places = [event["sequence"] for event in same]
            yield same[0]["at"], f"event {event_id} stands in the stream {len(same)} times, at {places}"
    committed = {(row["id"], row["worker"], row["epoch"]): row["reclaimed_at"] for row in history.reclaims}
    for (work, worker, epoch), same in told.items():
        if (work, worker, epoch) not in committed:
            at = same[0]["at"]
            yield at, f"the stream says that {work} was taken from {worker} (epoch {epoch}), and Postgres does not"
    for (work, worker, epoch), at in committed.items():
        count = len(told[work, worker, epoch])
        if count != 1:
            yield (
                at,
                f"{work} was taken from {worker} (epoch {epoch}, {clock(at)}), and the stream says so {count} times",
            )
    if history.outbox:
        yield history.at, f"{history.outbox} events in the outbox were not published"


def trail(history: History) -> Found:
    """The service wrote down what the host saw it take, no more and no less."""
    taken = defaultdict(list)
    for change in filter(is_taken, history.changes):
        taken[change.id, change.from_owner or ""].append(change.at)
        if change.to_status != "PENDING" or change.to_owner is not None:
            left = f"{change.to_status}, owned by {change.to_owner}"
            yield change.at, f"{change.id} was taken from {change.from_owner} at {clock(change.at)} and left {left}"
    rows = defaultdict(list)
    counts = defaultdict(list)
    for row in history.reclaims:
        rows[row["id"], row["worker"]].append(row["reclaimed_at"])
        counts[row["id"]].append(row)
    for key in taken.keys() | rows.keys():
        if len(taken[key]) != len(rows[key]):
            host, service = ([clock(at) for at in times] for times in (taken[key], rows[key]))
            yield (
                max(taken[key] + rows[key]),
                f"{key[0]} of {key[1]}: taken at {host}, written down as taken at {service}",
            )
    for work, reclaims in counts.items():
        numbers = sorted(row["reclaim_count"] for row in reclaims)
        if numbers != list(range(1, len(numbers) + 1)):
            yield reclaims[-1]["reclaimed_at"], f"the reclaims of {work} are counted {numbers}"


def finisher(history: History) -> Found:
    """A piece of work is completed once, out of the hands of who claimed it."""
    finished = defaultdict(list)
    for change in history.changes:
        if change.to_status == "COMPLETED":
            finished[change.id].append(change)
            if change.from_status != "RUNNING" or change.from_owner != change.to_owner:
                former = f"{change.from_status}, owned by {change.from_owner}"
                yield change.at, f"{change.id} was completed at {clock(change.at)} and was {former}"
    for work, changes in finished.items():
        if len(changes) > 1:
            times = [(it.from_life, clock(it.at)) for it in changes]
            yield changes[-1].at, f"{work} was completed {len(changes)} times: {times}"


def accepted(history: History) -> Found:
    """At most one worker was told that it completed a piece of work, and it is the one that did."""
    finishers = {change.id: change.from_life for change in history.changes if change.to_status == "COMPLETED"}
    told = defaultdict(list)
    for life in history.lives.values():
        for note in life.notes:
            if note.what == "completed" and note.at <= history.at:
                told[note.fields["id"]].append((life.incarnation, note.at))
    for work, claims in told.items():
        if len(claims) > 1:
            times = [(name, clock(at)) for name, at in claims]
            yield claims[-1][1], f"{work} has {len(claims)} accepted finishers: {times}"
        for name, at in claims:
            if name != finishers.get(work):
                knows = f"Postgres says {finishers.get(work, 'that nobody did')}"
                yield at, f"{name} was told at {clock(at)} that it completed {work}, and {knows}"
