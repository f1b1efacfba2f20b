"""What the figures of the benchmarks are made of, and how they are shown."""

import io
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from tests.benchmarks.figures import Curve, Measured, Outcome, Plan, Reach, Row, by_turns, percentile
from tests.benchmarks.markdown import Head, as_markdown, link_to
from tests.benchmarks.report import TITLES, Section, as_json, as_table, cells, machine, promised, shown, versions

TEXT = "Cost of a thing.\n\nHow it is measured."


def row(ours: list[float], theirs: list[float] | None = None, **fields: Any) -> Row:
    """Return a row of these samples."""
    made: dict[str, Any] = {"number": 1, "what": "a thing", "unit": "us", "baseline": "another" if theirs else ""}
    return Row(ours=Measured(ours), theirs=None if theirs is None else Measured(theirs), **made | fields)


def section(*rows: Row, curves: list[Curve] | None = None) -> Section:
    """Return what a benchmark measured."""
    return Section("thing", TEXT, Outcome(rows, curves or []))


def page(*sections: Section, pictures: str | None = None) -> str:
    """Return the page of a run."""
    head = Head(datetime(2030, 2, 1, 9, 5, tzinfo=UTC), "python -m tests.benchmarks thing", {"CPU": "slow"})
    return as_markdown(head, sections, pictures)


def test_the_ratio_is_the_median_of_the_pairs() -> None:
    """A machine that is slow for one turn is so for both sides of it."""
    assert row([1.0, 10.0, 3.0], [2.0, 20.0, 3.0]).ratio == 0.5


def test_the_ratio_of_what_was_not_measured_as_often_is_that_of_the_medians() -> None:
    """There are no pairs."""
    assert row([1.0, 2.0, 9.0], [4.0]).ratio == 0.5


@pytest.mark.parametrize("theirs", [None, [0.0], [0.0, 0.0]])
def test_there_is_no_ratio_to_what_is_missing_or_nothing(theirs: list[float] | None) -> None:
    """Nothing can be said, and nothing is raised."""
    assert row([1.0, 2.0], theirs).ratio is None


def test_a_pair_without_a_baseline_is_left_out() -> None:
    """The others count."""
    assert row([1.0, 2.0, 3.0], [0.0, 1.0, 1.0]).ratio == 2.5


@pytest.mark.parametrize(
    ("reach", "kept"),
    [
        (Reach(0.5), True),
        (Reach(0.4), False),
        (Reach(0.5, at_least=True), True),
        (Reach(0.6, at_least=True), False),
        (Reach(1.0, alone=True), True),
        (Reach(0.9, alone=True), False),
        (Reach(1.1, at_least=True, alone=True), False),
        (None, None),
    ],
)
def test_what_is_promised_of_the_ratio_or_of_our_figure_alone(reach: Reach | None, kept: bool | None) -> None:  # noqa: FBT001 - a table
    """A limit itself is within it."""
    assert row([1.0], [2.0], reach=reach).reached is kept


def test_what_is_promised_of_the_ratio_is_open_without_a_baseline() -> None:
    """A peer that is not there breaks no promise; what we promise alone does not need it."""
    assert row([1.0], reach=Reach(0.1)).reached is None
    assert row([1.0], reach=Reach(0.1, alone=True)).reached is False


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 51.0), (0.99, 100.0), (1.0, 100.0)])
def test_a_percentile_is_a_value_that_was_measured(share: float, value: float) -> None:
    """Of 1 to 100, in whatever order, with whatever share."""
    assert percentile([float(number) for number in range(100, 0, -1)], share) == value


def test_the_percentile_of_one_value_is_that() -> None:
    """Whatever share."""
    assert percentile([7.0], 0.01) == percentile([7.0], 0.99) == 7.0


def test_the_spread_is_a_share_of_the_median() -> None:
    """Of one figure, or of nothing, there is none."""
    assert Measured([1.0, 2.0, 4.0]).spread == 1.5
    assert Measured([3.0]).spread == Measured([0.0, 0.0]).spread == 0.0


async def test_sides_are_measured_by_turns() -> None:
    """One after the other in each round, and each has its own figures."""
    order = []

    def side(name: str) -> Callable[[], Any]:
        async def measured() -> float:
            order.append(name)
            return float(len(order))

        return measured

    ours, theirs = await by_turns(2, side("ours"), side("theirs"))

    assert order == ["ours", "theirs", "ours", "theirs"]
    assert (ours.samples, theirs.samples) == ([1.0, 3.0], [2.0, 4.0])


def test_a_quick_plan_does_less() -> None:
    """Every number of a benchmark has a smaller one beside it."""
    assert [Plan(quick, print).pick(7, 3) for quick in (False, True)] == [7, 3]


@pytest.mark.parametrize(
    ("samples", "text"),
    [
        ([1.23456], "1.23 us"),
        ([0.000123456], "0.000123 us"),
        ([999.4], "999 us"),
        ([1234.5], "1,234 us"),
        ([1.0, 2.0, 3.0], "2 us ±100%"),
        ([0.0], "0 us"),
    ],
)
def test_a_figure_is_shown_with_its_unit_and_spread(samples: list[float], text: str) -> None:
    """Three digits, or all before the point."""
    assert shown(Measured(samples), "us") == text


def test_what_is_promised_is_shown_in_words() -> None:
    """Of the ratio as so many times, of our figure in its unit."""
    assert promised(Reach(1.5), "us") == "at most 1.5 x"
    assert promised(Reach(3, at_least=True), "/s") == "at least 3 x"
    assert promised(Reach(250, alone=True), "B") == "at most 250 B"
    assert promised(None, "us") == ""


def test_a_line_has_a_text_for_each_title() -> None:
    """What is missing is named, and what was not asked for is empty."""
    full = row([1.0], [2.0], reach=Reach(0.4), note="why")
    assert cells(full) == ["a thing", "1 us", "another", "2 us", "0.50", "at most 0.4 x", "NO", "why"]
    assert cells(row([1.0], baseline="another", note="not installed"))[2:4] == ["another", "missing"]
    assert cells(row([1.0])) == ["a thing", "1 us", *[""] * (len(TITLES) - 2)]


def test_columns_that_nobody_fills_are_not_shown() -> None:
    """The table of a benchmark without a baseline is as narrow as it is."""
    table = as_table(section(row([1.0])))

    assert [column.header for column in table.columns] == ["what", "ours"]
    assert as_table(section()).columns == []


def test_a_line_that_looks_like_markup_is_shown_as_it_is() -> None:
    """Rich would take what stands in brackets for a style."""
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(as_table(section(row([1.0], note="[bold]"))))

    assert "[bold]" in console.export_text()


def test_the_page_has_a_head_and_a_section_for_each_benchmark() -> None:
    """When, by which command and where it ran; then the question, how it is measured, and the table."""
    text = page(section(row([1.0], [2.0], reach=Reach(0.4), note="a | b")))

    assert text.startswith("# Benchmarks\n\nMeasured on 2030-02-01, 09:05 UTC by `python -m tests.benchmarks thing`,")
    assert "on this machine: CPU slow.\n\nA figure is the median" in text
    assert "\n\n## 1. Cost of a thing\n\nHow it is measured.\n\n| what | ours |" in text
    assert "| a thing | 1 us | another | 2 us | 0.50 | at most 0.4 x | **NO** | a \\| b |" in text


def test_the_sections_stand_in_the_order_of_their_numbers() -> None:
    """In whatever order they ran."""
    text = page(section(row([1.0], number=2)), section(row([1.0], number=1)))

    assert text.index("## 1. ") < text.index("## 2. ")


def test_a_curve_is_linked_only_where_it_was_drawn() -> None:
    """By a path from the page."""
    drawn = section(row([1.0]), curves=[Curve(name="c", title="A curve", x="", y="", lines={})])

    assert "\n\n![A curve](plots/c.svg)\n" in page(drawn, pictures="plots")
    assert "![" not in page(drawn)


def test_a_link_leads_from_the_page_to_the_pictures(tmp_path: Path) -> None:
    """Beside it, below it, or elsewhere."""
    assert link_to(tmp_path / "docs" / "plots", tmp_path / "docs" / "benchmarks.md") == "plots"
    assert link_to(tmp_path / "plots", tmp_path / "docs" / "benchmarks.md") == "../plots"


def test_every_sample_is_in_the_json() -> None:
    """With what was made of it."""
    written = msgspec.json.decode(as_json([section(row([1.0], [2.0], reach=Reach(0.4)))], {"CPU": "slow"}))

    found = written["rows"]["thing"][0]
    assert written["machine"] == {"CPU": "slow"}
    assert (found["ours"]["samples"], found["theirs"]["samples"]) == ([1.0], [2.0])
    assert (found["ratio"], found["reached"]) == (0.5, False)


def test_the_machine_is_named_with_the_versions_that_it_has() -> None:
    """What is not installed is left out."""
    assert {"CPU", "cores", "memory", "Python", "msgspec"} <= machine().keys()
    assert list(versions(["msgspec", "no-such-package"])) == ["msgspec"]
