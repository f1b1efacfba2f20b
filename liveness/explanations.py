"""The words for what `why` knows: one sentence that says all, and the steps that led there. Pure.

Everything here may be read at 3 a.m. by somebody who wants to go back to bed: what is true now comes first, then why it
is so, then what will happen next, by itself or not at all. What nobody can know is said as that.

An explanation is made of facts alone, so that whoever has them all can make it again: a command that had to ask two
services does.
"""

from collections.abc import Callable, Mapping

import msgspec

from liveness.evidence import (
    because,
    because_leaked,
    clock,
    evidence_words,
    leaked_words,
    left_out_for,
    never,
    suspicion,
    unknown,
)
from liveness.facts import Instant, Life, Move, Owner, Piece, Row, Standing, Step, WhyAnswer, WorkerTold
from liveness.figures import counting, ordinal, past, seconds


def told(answer: WhyAnswer) -> WhyAnswer:
    """Return the answer with its words."""
    pieces = [
        msgspec.structs.replace(piece, sentence=piece_sentence(piece), steps=piece_steps(piece))
        for piece in answer.pieces
    ]
    worker = answer.worker
    if worker is not None:
        worker = msgspec.structs.replace(worker, sentence=worker_sentence(worker), steps=worker_steps(worker))
    known = answer.known or (worker is not None and _is_in_memory(worker.owner))
    sentences = [piece.sentence for piece in pieces] + ([worker.sentence] if worker is not None else [])
    sentence = " ".join(sentences) if known else unknown(answer)
    return msgspec.structs.replace(answer, known=known, pieces=pieces, worker=worker, sentence=sentence)


def with_owners(answer: WhyAnswer, change: Callable[[Owner], Owner]) -> WhyAnswer:
    """Return the answer with `change` made to every worker whose standing it tells."""
    pieces = [
        piece if piece.owner is None else msgspec.structs.replace(piece, owner=change(piece.owner))
        for piece in answer.pieces
    ]
    worker = answer.worker
    if worker is not None:
        worker = msgspec.structs.replace(worker, owner=change(worker.owner))
    return msgspec.structs.replace(answer, pieces=pieces, worker=worker)


def piece_sentence(piece: Piece) -> str:
    """Return the one sentence about a piece of work."""
    name, row = f"{piece.work} {piece.id}", piece.row
    if row is None:
        where = "is of a kind whose table is not known here"
        if piece.elsewhere:
            where = f"is in {piece.table} and is no {piece.work} now, by the condition that the settings have for it"
        elif piece.table:
            where = f"is not in {piece.table} any more"
        return _sentence(f"{name} {where}; it {_last_move(piece)}")
    if not piece.moves:
        return _sentence(f"{name} {never('moved', piece.forgotten)}: {_now(row, piece.owner)}")
    return _sentence(f"{name} {_last_move(piece)}; now {_now(row, piece.owner)}")


def _sentence(words: str) -> str:
    # It may end with what Postgres or the host has said, which may be a sentence.
    return f"{words.rstrip('.')}."


def _last_move(piece: Piece) -> str:
    move = piece.moves[-1]
    cause = because(move.worker, move.life) if move.leaked is None else because_leaked(move.worker, move.leaked)
    if move.observed:
        return f"would have gone back at {clock(move.reclaimed)}, but mode was observe, because {cause}"
    if move.outcome == "quarantined":
        crashes = sum(one.crash for one in piece.moves)
        least = "at least " if piece.more else ""
        return (
            f"was set aside at {clock(move.reclaimed)} because its workers kept dying, {least}{crashes} of them; the "
            f"last time {cause}"
        )
    if move.outcome is not None:
        return f"did not go back at {clock(move.reclaimed)} ({move.outcome}: its attempts were used up) when {cause}"
    times = "" if move.reclaim_count <= 1 else f", for the {ordinal(move.reclaim_count)} time,"
    return f"went back to the queue at {clock(move.reclaimed)}{times} because {cause}"


def _now(row: Row, owner: Owner | None) -> str:
    if row.running:
        return f"{row.status}, {_running(row, owner)}"
    if row.waiting:
        return f"{row.status}, nobody holds it"
    return f"{row.status or 'without a status'}, so there is nothing to take back"


def _running(row: Row, owner: Owner | None) -> str:
    if owner is None:
        return "without an owner: nobody can say whose it is, so it is left alone"
    if owner.fault is not None:
        return f"held by {owner.worker}, which no worker can be called (it {owner.fault}), so it is left alone"
    if row.refused is not None:
        return (
            f"the life of {owner.worker} that held it is over, and the table refuses to put it back; that is tried "
            f"again every few minutes: {row.refused}"
        )
    if row.fixed:
        return _fixed(owner)
    if owner.standing is None:
        return f"owner {owner.worker}: nobody could say whether it lives ({_nobody(owner)}); {_recorded(owner)}"
    if owner.standing.state == "none":
        return _swept(row, owner, owner.standing)
    return f"owner {owner.worker} {_leased(owner.standing)}{_left_out(row)}"


def _fixed(owner: Owner) -> str:
    # Whether a later life of the name lives, and is well, is nothing to this row.
    over = (
        f"the life of {owner.worker} that held it is over, and the row is fixed to go back: the host has it locked, or "
        "it waits for its turn"
    )
    if owner.standing is None:
        return f"{over}; nobody could say whether a service sees to it ({_nobody(owner)})"
    return f"{over}; the next pass comes within seconds"


def _left_out(row: Row) -> str:
    if row.left_out is None:
        return ""
    for_long = left_out_for(row.left_out.leaked)
    return (
        f"; at {clock(row.left_out.found)} it had left it out of what it says it runs{for_long} (leaked), which was "
        "told of, and nothing was taken"
    )


def _leased(standing: Standing) -> str:
    """Return how a worker stands that has a lease, and what becomes of it."""
    if standing.state == "live":
        return _living(standing)
    ago = seconds(standing.overdue)
    if standing.state == "lapsed":
        over = f"lapsed {ago} ago ({_beaten(standing)}, ttl {standing.ttl or 0:g} s)"
    else:
        over = f"ended {ago} ago ({standing.reason})"
    return f"{over}; {_waits(standing)}"


def _living(standing: Standing) -> str:
    left = seconds(standing.remaining)
    if not standing.hearing:
        silent = standing.silent_for
        heard = "not heard yet" if silent is None else f"silent for {seconds(silent)} of hearing"
        return f"holds a lease, {heard}; {_deaf(standing)}"
    if standing.silent_for is None:
        return f"was not heard since the service has been listening, and has {left} left to be heard{_epoch(standing)}"
    how = "is alive" if standing.suspected is None else f"may be dead ({suspicion(standing.suspected)})"
    how += f", {_beaten(standing)}, its lease has {left} left{_epoch(standing)}"
    if standing.wedged:
        how += "; it says that it runs something, and gets nothing done (wedged): nothing is taken for that"
    if standing.conflict:
        how += "; another process beats under its name: nothing is taken from either"
    return how


def _waits(standing: Standing) -> str:
    """Return why a life that should end has not yet."""
    if standing.paused is not None:
        return f"held, because it is {standing.paused}"
    if standing.storm is not None:
        left = "until a beat shows that the way is open"
        if standing.storm_left is not None:
            left = f"for {seconds(standing.storm_left)} more at most, then 15 % of them a second"
        return f"held by a {standing.storm}, {left}"
    if standing.refused is not None:
        return f"Postgres refuses to end it, and is asked again every few seconds: {standing.refused}"
    if standing.state == "lapsed" and not standing.hearing:
        return _deaf(standing)
    if standing.contested:
        return "somebody has its epoch locked in Postgres, which is asked until it is free"
    if trouble := next((line for line in standing.troubles if "Postgres" in line), ""):
        does = "takes it" if "Postgres refuses" in trouble else "answers"
        return f"its work goes back as soon as Postgres {does} ({trouble})"
    if standing.epoch is None:
        return "Postgres has yet to issue the epoch that it ends"
    observed = ", but mode is observe, so nothing of the host's is touched" if standing.mode == "observe" else ""
    return f"Postgres is asked for its verdict, and the work goes back with that{observed}"


def _swept(row: Row, owner: Owner, standing: Standing) -> str:
    """Return why work whose owner has no lease is RUNNING still, and when the sweep takes it, if ever."""
    whose = f"owner {owner.worker} is {'up' if owner.up else 'not up'} in the registry and {_unheard(owner)}"
    if owner.differs_in_case_from is not None:
        return f"{whose}; it differs only in case from {owner.differs_in_case_from}, so it is left alone"
    if standing.refused is not None:
        return f"{whose}; Postgres refuses to end it, and is asked again at every sweep: {standing.refused}"
    if standing.mode == "observe":
        if _was_observed(row, owner):
            return f"{whose}; mode is observe: it is recorded that it would go back, and it is left"
        return f"{whose}; mode is observe, else the sweep would take it {_when_swept(row, owner, standing)}"
    return f"{whose}; the sweep takes it {_when_swept(row, owner, standing)}"


def _unheard(owner: Owner) -> str:
    if owner.life is None:
        return never("heard", owner.forgotten)
    end = owner.life.end
    since = "" if end is None else f" since its life ended ({end.reason}) at {clock(end.expired)}"
    return f"was not heard{since}"


def _when_swept(row: Row, owner: Owner, standing: Standing) -> str:
    every = f"sweeps come every {standing.stale_worker_check_interval:g} s"
    if standing.paused is not None:
        return f"when it is no longer {standing.paused}"
    if standing.storms:
        return f"when no storm holds any lapse ({standing.storms[0]})"
    if not standing.hearing:
        return f"when it can hear again: {_deaf(standing)}"
    needed = max(standing.heartbeat_timeout, owner.life.ttl if owner.life is not None else 0.0)
    listened = needed - standing.listened_for
    if owner.up:
        beat = owner.registry_heartbeat
        after = _after(standing, standing.heartbeat_timeout, standing.stale_after, beat)
        condition = f"nobody has recorded a heartbeat for {counting(standing.heartbeat_timeout, after)}"
        silent = 0.0 if beat is None else after - beat.ago
    else:
        if row.touched is None:
            return "never: nobody can say when it was touched last"
        after = _after(standing, standing.workflow_stuck_timeout, standing.orphaned_after, row.touched)
        condition = f"it has been untouched for {counting(standing.workflow_stuck_timeout, after)}"
        silent = after - row.touched.ago
    if listened > max(silent, 0.0):
        return f"when the service has listened for {needed:g} s without a loss, in {seconds(listened)} ({every})"
    if silent > 0.0:
        return f"when {condition}, in {seconds(silent)} ({every})"
    return f"with the next sweep ({every})"


def _after(standing: Standing, counted: float, longest: float, last: Instant | None) -> float:
    # What is younger than the outage is no older by it.
    return counted if last is None or last.ago <= standing.postgres_back else max(counted, longest)


def _was_observed(row: Row, owner: Owner) -> bool:
    end = owner.life.end if owner.life is not None else None
    return end is not None and end.observed and row.touched is not None and end.expired.ago < row.touched.ago


def worker_sentence(worker: WorkerTold) -> str:
    """Return the one sentence about a worker."""
    owner, standing = worker.owner, worker.owner.standing
    holds = _counted(worker.holds)
    if owner.fault is not None:
        now = f" is a name that no worker can have (it {owner.fault})"
    elif standing is None:
        now = f": nobody could say whether it lives ({_nobody(owner)}); {_recorded(owner)}"
    elif standing.state == "none":
        since = " since" if owner.life is not None else ""
        now = (
            f" has no lease: nothing was heard of it{since}, and it is {'up' if owner.up else 'not up'} in the registry"
        )
    else:
        now = f" {_leased(standing)}"
    ended = [(life, life.end) for life in worker.lives if life.end is not None]
    last = ""
    if ended:
        life, end = ended[-1]
        last = f"; its last life to end did so at {clock(end.expired)} because {because(owner.worker, life)}"
    return _sentence(f"{owner.worker}{now}; it holds {holds}{last}")


def piece_steps(piece: Piece) -> list[Step]:
    """Return what happened to a piece of work, in the order of time."""
    found: list[Step] = []
    lives: set[tuple[str, int]] = set()
    for move in piece.moves:
        # A life may have held it twice.
        if move.life is not None and (move.worker, move.epoch) not in lives:
            lives.add((move.worker, move.epoch))
            found += life_steps(move.life)
        if move.leaked is not None:
            found.append(Step(move.reclaimed, "leaked", move.worker, move.epoch, leaked_words(move.leaked)))
        what = "observed" if move.observed else move.outcome or "reclaimed"
        found.append(Step(move.reclaimed, what, move.worker, move.epoch, _moved(piece, move)))
    row, owner = piece.row, piece.owner
    if row is not None and (left := row.left_out) is not None:
        found.append(Step(left.found, "leaked", row.owner or "", left.epoch, leaked_words(left.leaked)))
    if owner is not None and owner.life is not None and (owner.worker, owner.life.epoch) not in lives:
        found += life_steps(owner.life)
    # To go back is a change, too.
    if (
        row is not None
        and row.touched is not None
        and row.touched.at not in {move.reclaimed.at for move in piece.moves}
    ):
        says = f"the row was changed last: {row.status}"
        found.append(Step(row.touched, "changed", row.owner or "", None, says))
    return _in_order(found)


def _moved(piece: Piece, move: Move) -> str:
    times = f"for the {ordinal(move.reclaim_count)} time"
    if move.observed:
        return f"would have gone back {times}, but mode was observe"
    # A life that lost this row alone, by a leak, did not die of it, nor of another: not then.
    ended = None if move.life is None or move.leaked is not None else move.life.end
    killer = None if ended is None else ended.killers.get(piece.work)
    blamed = ""
    if killer is not None and killer != piece.id:
        blamed = f"; that death was put down to {piece.work} {killer}, and counts against nothing else"
    elif killer is not None and move.outcome is None:
        blamed = "; that death was put down to it"
    elif move.crash and move.outcome is None:
        blamed = "; that death counts against it and all that ran beside it"
    if move.outcome == "exhausted":
        return f"taken back {times}, and not put back: its attempts were used up{blamed}"
    if move.outcome is not None:
        return f"taken back {times}, and set aside: {move.outcome}{blamed}"
    return f"back in the queue {times}{blamed}"


def worker_steps(worker: WorkerTold) -> list[Step]:
    """Return what happened to a worker, in the order of time."""
    return _in_order([step for life in worker.lives for step in life_steps(life)])


def life_steps(life: Life) -> list[Step]:
    """Return what happened in one life."""
    incarnation = f", incarnation {life.incarnation}" if life.incarnation else ""

    def step(when: Instant, what: str, says: str) -> Step:
        return Step(when, what, life.worker, life.epoch, says)

    steps = [step(life.granted, "granted", f"a life begins{incarnation}, ttl {life.ttl:g} s")]
    end = life.end
    if end is None:
        return steps
    if end.last_heartbeat is not None:
        steps.append(step(end.last_heartbeat, "last beat", "heard, or recorded, for the last time"))
    if end.lapsed is not None:
        steps.append(step(end.lapsed, "lapsed", f"its lease of {end.ttl:g} s ran out"))
    back = ""
    if life.gave_back is not None:
        back = f"; {_counted(life.gave_back)} {'would have gone back' if end.observed else 'went back'}"
    steps.append(step(end.expired, "ended", f"{end.reason}: {evidence_words(end)}{back}"))
    if end.recovered is not None:
        steps.append(step(end.recovered, "heard again", f"its next life; epoch {life.epoch} is over for good"))
    return steps


def _counted(items: Mapping[str, int]) -> str:
    return ", ".join(f"{count} x {work}" for work, count in items.items()) or "nothing"


def _in_order(steps: list[Step]) -> list[Step]:
    return sorted(steps, key=lambda step: -step.when.ago)


def _beaten(standing: Standing) -> str:
    return "not heard yet" if standing.silent_for is None else f"last beat {seconds(standing.silent_for)} ago"


def _epoch(standing: Standing) -> str:
    return ", its epoch is being issued" if standing.epoch is None else f", epoch {standing.epoch}"


def _deaf(standing: Standing) -> str:
    trouble = next((line for line in standing.troubles if line.startswith("NATS")), "NATS: nothing is heard")
    return f"the service is deaf just now, so silence counts against nobody ({trouble})"


def _nobody(owner: Owner) -> str:
    return owner.unanswered or "no service was asked"


def _recorded(owner: Owner) -> str:
    """Return what Postgres alone knows of a worker."""
    life = owner.life
    if life is None:
        epoch = "it never had an epoch"
    elif life.end is None:
        epoch = f"its epoch {life.epoch} is open since {clock(life.granted)}"
    else:
        epoch = f"its epoch {life.epoch} ended at {clock(life.end.expired)}"
    if not owner.registered:
        return f"{epoch}, and the registry does not know it"
    beat = owner.registry_heartbeat
    recorded = "no heartbeat recorded" if beat is None else f"a heartbeat recorded {past(beat.ago)}"
    return f"{epoch}, and the registry has it {'up' if owner.up else 'not up'}, with {recorded}"


def _is_in_memory(owner: Owner) -> bool:
    return owner.standing is not None and owner.standing.state != "none"
