"""Why a life ended, in words, from the record that was written of it. Pure.

The evidence is what the service of that time wrote: what it lacks is not told, and what it holds beyond is left to
`--json`. A reason that is not known here is told by its name.
"""

from collections.abc import Mapping
from typing import Any, Final

from liveness.facts import End, Instant, Leaked, Life, WhyAnswer
from liveness.figures import counted, past

# Behind "because"; a reason that a later version brings is told by its name.
_BECAUSE: Final[Mapping[str, str]] = {
    "lapsed": "{worker} was not heard{silent} (ttl {ttl:g} s)",
    "released": "{worker} said goodbye",
    "died": "the process of {worker} was seen to end{exit}",
    "restarted": "{worker} was started again, and its former process is over",
    "stale": "{worker} was up in the registry, but nobody recorded a heartbeat of it, and none was heard",
    "orphaned": "its owner {worker} was neither up nor heard, and nobody touched it",
    "operator": "an operator ended the life of {worker}",
}


# Behind "may be dead"; a cause that a later version brings is told by its name.
_SUSPICIONS: Final[Mapping[str, str]] = {
    "silent": "silent for two of its intervals",
    "probe": "it was asked, and nobody answered",
    "disconnected": "NATS has lost its connection",
}


def suspicion(cause: str) -> str:
    """Return why a worker is suspected, in words."""
    return _SUSPICIONS.get(cause, cause)


def clock(instant: Instant) -> str:
    """Return an instant for people: to the second, UTC, and how long ago that is."""
    return f"{instant.at[:19]}Z ({past(instant.ago)})"


def never(what: str, forgotten: Instant | None) -> str:
    """Return that something was never so, or not since what was before that was forgotten."""
    if forgotten is None:
        return f"was never {what}"
    return f"was not {what} since {clock(forgotten)}, and what was before is not kept"


def unknown(answer: WhyAnswer) -> str:
    """Return where was looked in vain."""
    where = ", ".join(answer.looked_in)
    kept = "" if answer.forgotten is None else f" What was before {clock(answer.forgotten)} is not kept."
    if answer.worker is not None:
        unanswered = answer.worker.owner.unanswered
        memory = f"; the service was not asked: {unanswered}" if unanswered else " and the leases"
        return (
            f"nothing is known of a worker {answer.worker.owner.worker}: looked in the registry, the epochs, the "
            f"owners in {where}{memory}. Names are matched to the letter.{kept}"
        )
    return f"nothing is known of that id: looked in {where} and in the history of all that ever moved.{kept}"


def because(worker: str, life: Life | None) -> str:
    """Return why a life of `worker` ended, as the rest of a sentence behind "because"."""
    end = None if life is None else life.end
    if end is None:
        # Its record is gone.
        return f"{worker} had it, and no end of that life is written down"
    return _BECAUSE.get(end.reason, "the life of {worker} ended ({reason})").format(
        worker=worker, reason=end.reason, ttl=end.ttl, silent=_silent(end.evidence), exit=_exit(end.evidence)
    )


def because_leaked(worker: str, leaked: Leaked) -> str:
    """Return why `worker` lost a row though it lived, as the rest of a sentence behind "because"."""
    return f"{worker}, which lived, left it out of what it says it runs{left_out_for(leaked)} (leaked)"


def left_out_for(leaked: Leaked) -> str:
    """Return for how long a row was left out, as it stands in a sentence; nothing if the record lacks it."""
    left_out = _number(leaked.evidence, "left_out_for")
    return "" if left_out is None else f" for {left_out:.1f} s"


def leaked_words(leaked: Leaked) -> str:
    """Return all that the record of a leak says."""
    said = (
        _text(leaked.evidence, "why") or "not in what its worker lists",
        _hearing(leaked.evidence),
        f"decided by {leaked.decided_by} in transaction {leaked.transaction_id}",
    )
    return "; ".join(words for words in said if words)


def evidence_words(end: End) -> str:
    """Return all that the record of an end says: what was heard, probed and believed, who decided, and where."""
    evidence, details = end.evidence, _details(end.evidence)
    storm = _text(evidence, "storm") or ("no storm" if end.reason == "lapsed" else "")
    untouched = end.untouched_for
    said = (
        _text(evidence, "why") or f"ended ({end.reason})",
        _exit(evidence).strip(" ()"),
        _labelled("known of it then", _text(details, "heard")),
        _labelled("probed", _text(details, "probe")),
        storm if storm == "no storm" else _labelled("storm", storm),
        _labelled("pause", _text(evidence, "paused")),
        _labelled("heard by the NATS server", _text(evidence, "via")),
        _hearing(evidence),
        "another process of the name was there by then" if evidence.get("followed") else "",
        "" if untouched is None else f"only rows untouched for {untouched:.1f} s were its",
        "mode observe: nothing of the host's was touched" if end.observed else "",
        f"decided by {end.decided_by} in transaction {end.transaction_id}",
        "not all of its work is back yet" if end.finished is None else "",
    )
    return "; ".join(words for words in said if words)


def _labelled(label: str, text: str | None) -> str:
    return f"{label}: {text}" if text else ""


def _silent(evidence: Mapping[str, Any]) -> str:
    silent, listened = _number(evidence, "silent_for"), _number(evidence, "listened_for")
    if silent is not None:
        return f" for {silent:.1f} s"
    return "" if listened is None else f" in {listened:.1f} s of listening"


def _hearing(evidence: Mapping[str, Any]) -> str:
    hearing = evidence.get("hearing")
    if not isinstance(hearing, Mapping):
        return ""
    now, lost, gaps = (_number(hearing, key) for key in ("now", "not_counted", "gaps"))
    if now is None or lost is None:
        return ""
    in_gaps = "" if gaps is None else f" in {counted(int(gaps), 'gap')}"
    return f"the hearing clock stood at {now:.1f} s, with {lost:.1f} s not counted{in_gaps} since the service's start"


def _exit(evidence: Mapping[str, Any]) -> str:
    details = _details(evidence)
    code, signal = _number(details, "exit_code"), _number(details, "signal")
    if signal is not None:
        return f" (signal {signal:.0f})"
    return "" if code is None else f" (exit code {code:.0f})"


def _details(evidence: Mapping[str, Any]) -> Mapping[str, Any]:
    details = evidence.get("details")
    return details if isinstance(details, Mapping) else {}


def _text(evidence: Mapping[str, Any], key: str) -> str | None:
    found = evidence.get(key)
    return found if isinstance(found, str) else None


def _number(evidence: Mapping[str, Any], key: str) -> float | None:
    found = evidence.get(key)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
