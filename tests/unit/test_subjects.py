"""Names and subjects."""

import pytest

from liveness.subjects import MAX_NAME_BYTES, Subjects, event_subject, name_fault


@pytest.mark.parametrize("worker", ["w1", "worker-1.eu.example.com", "ä", "a*b", ">b", "x" * MAX_NAME_BYTES])
def test_a_name_goes_through_a_subject_and_back(worker: str) -> None:
    """Dots and all."""
    subjects = Subjects("acme.liveness")

    assert name_fault(worker) is None
    assert subjects.worker_of(subjects.heartbeat(worker)) == worker
    assert subjects.worker_of(subjects.goodbye(worker)) == worker


@pytest.mark.parametrize(
    ("worker", "fault"),
    [
        ("", "empty"),
        ("a b", "white space"),
        ("a\tb", "white space"),
        ("a\x00", "control"),
        ("a..b", "empty token"),
        (".a", "empty token"),
        ("a.", "empty token"),
        ("a.*", "wildcard"),
        (">", "wildcard"),
        ("ä" * 128, "256 bytes"),
        ("\ud800", "Unicode"),
        ("a\ufffd", "UTF-8"),
    ],
)
def test_a_name_that_cannot_be_heard_is_refused_with_its_fault(worker: str, fault: str) -> None:
    """No worker could ever publish under it."""
    assert fault in (name_fault(worker) or "")


def test_events_are_published_literally_on_their_type() -> None:
    """Unless a prefix is set; what was only observed stands apart."""
    assert event_subject("workflow.reclaimed") == "workflow.reclaimed"
    assert event_subject("workflow.reclaimed", "acme") == "acme.workflow.reclaimed"
    assert event_subject("workflow.reclaimed", observed=True) == "observed.workflow.reclaimed"
