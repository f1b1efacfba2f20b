"""What a long run finds fault with."""

from typing import Any

import msgspec
import pytest

from tests.soak.__main__ import Report

FINE = Report(
    minutes=10.0, sent=1_000, heard=1_000, first=100e6, last=101e6, gaps=0, not_heard=0.0, expired=0
)  # fmt: skip


def test_a_run_that_stays_as_it_is_has_no_fault() -> None:
    """A little more memory is none."""
    assert FINE.violations == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"last": 104e6}, "memory went from 100.0 to 104.0 MB"),
        ({"last": 96e6}, "memory went from 100.0 to 96.0 MB"),
        ({"heard": 999}, "1 heartbeats were dropped"),
        ({"gaps": 1, "not_heard": 0.6}, "1 gaps in hearing, 0.600 s"),
        ({"expired": 2}, "2 living workers were given up"),
    ],
)
def test_each_fault_is_found_by_itself(fault: dict[str, Any], said: str) -> None:
    """And told with its measure."""
    assert msgspec.structs.replace(FINE, **fault).violations == [said]
