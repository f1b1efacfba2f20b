"""How the page looks. Pure but for its templates, which are files of the package."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from liveness.answers import StatusAnswer
from liveness.facts import Piece, WhyAnswer, WorkerTold
from liveness.figures import past
from liveness.overview import beaten, expired, marks, moved, notices, state
from liveness.shown import printable

# Workers on one page.
ROWS: Final = 100
# How far one can turn: further behind are those that end last, who are found by their names.
OFFSET_MOST: Final = 100_000

_WORDS: Final[Mapping[str, str]] = {
    "live": "live",
    "draining": "draining",
    "suspect": "suspect",
    "wedged": "wedged",
    "lapsed": "lapsed, waits for the verdict",
    "ending": "ending",
}


class View(NamedTuple):
    """What of the workers is looked at: those with `name` in their names, behind the first `offset`."""

    name: str = ""
    offset: int = 0

    def query(self, offset: int | None = None) -> str:
        """Return this view, or one further on, as the query of an address; empty for the first of all."""
        at = self.offset if offset is None else offset
        asked = ({"name": self.name} if self.name else {}) | ({"offset": str(at)} if at else {})
        return urlencode(asked)


def status_page(answer: StatusAnswer, view: View) -> str:
    """Return the whole page."""
    return _environment().get_template("page.html").render(_status(answer, view))


def status_part(answer: StatusAnswer, view: View) -> str:
    """Return the part of it that changes."""
    return _environment().get_template("part.html").render(_status(answer, view))


def story_page(answer: WhyAnswer, *, leads: bool) -> str:
    """Return the page of what `why` has found."""
    parts: list[Piece | WorkerTold] = [*answer.pieces, *([] if answer.worker is None else [answer.worker])]
    return _environment().get_template("story.html").render(answer=answer, parts=parts, leads=leads)


def trouble_page(title: str, says: str) -> str:
    """Return a page that says why there is none."""
    return _environment().get_template("trouble.html").render(title=title, says=says)


def _status(answer: StatusAnswer, view: View) -> dict[str, Any]:
    matching = answer.leases if answer.matching is None else answer.matching
    behind = view.offset + len(answer.workers)
    return {
        "answer": answer,
        "view": view,
        "state": state(answer) + (", and paused" if answer.paused is not None else ""),
        "well": not answer.troubles and answer.paused is None,
        "marks": marks(answer),
        "notices": [*([str(answer.paused)] if answer.paused is not None else []), *notices(answer)],
        "matching": matching,
        "first": min(view.offset + 1, behind),
        "last": behind,
        "before": None if not view.offset else view.query(max(view.offset - ROWS, 0)),
        "after": view.query(behind) if behind < matching and answer.workers and behind <= OFFSET_MOST else None,
    }


def work_address(work_id: str) -> str:
    """Return where the story of a piece of work is."""
    # What browsers take for a folder cannot stand in a path.
    if work_id in {".", ".."}:
        return f"/why?{urlencode({'id': work_id})}"
    return f"/why/{quote(work_id, safe='')}"


def worker_address(worker: str) -> str:
    """Return where the story of a worker is."""
    return f"/why?{urlencode({'worker': worker})}"


def _harmless(value: object) -> object:
    """Return what a template writes, without what an eye or a browser would obey; escaped it is afterwards."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("liveness.page"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "ago": past,
        "beaten": beaten,
        "expired": expired,
        "moved": moved,
        "state": lambda worker: _WORDS[worker.state],
        "work_address": work_address,
        "worker_address": worker_address,
        "thousands": lambda number: f"{number:,}",
    }
    return environment
