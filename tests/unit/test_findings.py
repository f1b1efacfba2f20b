"""What a check says, in which order; and which indexes are proposed, under which names."""

from liveness.findings import Finding, Gain, Weight, ordered, weighed
from liveness.needs import MOST_NAME_BYTES, Need, literal, needs
from liveness.work import BUILT_IN, Registry


def finding(about: str, weight: Weight, *gains: tuple[float, float | None], check: str = "a test's") -> Finding:
    """Return a finding with everything that a test does not care about filled in."""
    return Finding(
        check=check, weight=weight, about=about, says="so",
        gains=tuple(Gain(use="always", now=now, then=then) for now, then in gains),
    )  # fmt: skip


def test_the_heaviest_comes_first_and_then_what_gains_most() -> None:
    """However the checks found them."""
    found = [
        finding("better", Weight.BETTER, (100.0, 0.0)),
        finding("slow", Weight.BAD, (1.0, 0.9)),
        finding("slower", Weight.BAD, (0.5, 0.1), (0.3, None)),
        finding("broken", Weight.BROKEN),
    ]

    assert [one.about for one in ordered(found)] == ["broken", "slower", "slow", "better"]


def test_of_equal_weight_the_check_that_was_made_first_comes_first() -> None:
    """Whether a server answers matters more than what an index would gain."""
    found = [
        finding("away", Weight.BAD, check="reach"),
        finding("slow", Weight.BAD, (9.0, 0.1), check="indexes"),
        finding("away, too", Weight.BAD, check="reach"),
    ]

    assert [one.about for one in ordered(found)] == ["away", "away, too", "slow"]


def test_what_is_missed_is_bad_when_it_is_much_or_nobody_knows() -> None:
    """By its dearest use; to the table of a fresh host an index would be of no use as yet."""

    def weight(*gains: tuple[float, float | None]) -> Weight:
        return weighed(finding("it", Weight.BAD, *gains).gains)

    assert weight((0.009, 0.001), (0.0001, 0.0002)) is Weight.BETTER
    assert weight((0.009, 0.001), (0.2, 0.001)) is Weight.BAD
    assert weight((0.001, None)) is Weight.BAD


def test_the_needs_are_of_all_tables() -> None:
    """One of each table of work, limited to what runs, and one of the registry."""
    assert [(need.table, need.column, need.predicate) for need in needs(Registry(), BUILT_IN)] == [
        ("workflow_execution", "worker_id", " WHERE \"status\" = 'RUNNING'"),
        ("task_execution", "worker_id", " WHERE \"status\" = 'RUNNING'"),
        ("worker", "worker_name", ""),
    ]


def test_names_and_values_are_quoted() -> None:
    """Whatever they hold, a statement reads them literally."""
    need = Need(table='a"b', column='c"d', where=('e"f', "g'h\\"), why="")

    assert need.statements('s"x') == [
        'CREATE INDEX CONCURRENTLY "a""b_c""d_liveness" ON "s""x"."a""b" ("c""d") WHERE "e""f" = E\'g\'\'h\\\\\';'
    ]
    assert literal("RUNNING") == "'RUNNING'"


def test_a_name_is_new_and_no_longer_than_postgres_takes() -> None:
    """Postgres would cut it, and the next one to the same; half a character is none."""
    need = Need(table="ü" * 40, column="owner", why="")

    first = need.statements("public")[0].split('"')[1]
    second = need.statements("public", taken=[first])[0].split('"')[1]

    assert len(first.encode()) <= MOST_NAME_BYTES
    assert len(second.encode()) <= MOST_NAME_BYTES
    assert first != second
    assert first.endswith("_owner_liveness")


def test_each_partition_has_its_own_before_the_whole() -> None:
    """The whole one's index adopts them; made first, it would make them itself, with everybody kept from writing."""
    need = Need(table="work", column="owner", why="")

    made = need.statements("public", [("public", "work_1"), ("other", "work_2")])

    assert made == [
        'CREATE INDEX CONCURRENTLY "work_1_owner_liveness" ON "public"."work_1" ("owner");',
        'CREATE INDEX CONCURRENTLY "work_2_owner_liveness" ON "other"."work_2" ("owner");',
        'CREATE INDEX "work_owner_liveness" ON "public"."work" ("owner");',
    ]
