"""Shares: whose a worker is, how a share is written, and on which subjects it listens."""

import pytest

from liveness.errors import SettingsError
from liveness.settings import load
from liveness.share import Share, fnv, parsed
from liveness.subjects import OWN, Subjects


@pytest.mark.parametrize(
    ("subject", "count", "index"),
    # By nats-server 2.15.1, for the mapping of `liveness.heartbeat.>` to `partition(4)`.
    [
        ("liveness.heartbeat.w1", 4, 0),
        ("liveness.heartbeat.y", 4, 3),
        ("liveness.heartbeat.zzz", 4, 2),
        ("liveness.heartbeat.wörk", 4, 3),
        ("liveness.heartbeat.a.b", 4, 3),
        ("anything", 1, 0),
    ],
)
def test_the_hash_is_the_servers(subject: str, count: int, index: int) -> None:
    """Whatever characters and dots the name has."""
    assert fnv(subject.encode()) % count == index


def test_every_name_is_of_one_share() -> None:
    """And about as many are of each."""
    owners = [
        [index for index in range(3) if Subjects("p", Share(index, 3)).owns(f"worker-{number}")]
        for number in range(3000)
    ]

    assert all(len(found) == 1 for found in owners)
    assert all(900 < owners.count([index]) < 1100 for index in range(3))


@pytest.mark.parametrize(
    "text",
    [
        "4",
        "4/4",
        "1/0",
        "-1/4",
        "a/b",
        "1/2/3",
        "0/2000",
        "0/10 ",
        "00/4",
        "0/04",
        "+1/4",
        "\u0661/\u0664",
        "²/4",
        "0/4\n",
    ],
)
def test_a_share_that_is_none_is_refused(text: str) -> None:
    """Also one that is written otherwise than it has to be: it would have a leader of its own beside the true one."""
    with pytest.raises(SettingsError, match="shard"):
        load({"LIVENESS_SHARD": text})


def test_a_share_is_read_from_the_settings() -> None:
    """Empty is everybody."""
    assert load({})[0].subjects.share is None
    assert load({"LIVENESS_SHARD": "3/16"})[0].subjects.share == parsed("3/16") == Share(3, 16)


def test_the_subjects_of_a_share() -> None:
    """It hears what the server maps to it, and speaks to workers where they listen."""
    ours = Subjects("acme", Share(2, 4))

    assert (ours.all_heartbeats, ours.api("status")) == ("acme.4.2.heartbeat.>", "acme.4.2.api.status")
    assert (ours.all_hellos, ours.all_goodbyes, ours.probe("w")) == ("acme.hello.>", "acme.goodbye.>", "acme.probe.w")
    assert ours.worker_of("acme.4.2.heartbeat.a.b") == ours.worker_of("acme.hello.a.b") == "a.b"
    assert (ours.api("reclaim"), ours.api_of_all("status")) == ("acme.api.reclaim", "acme.api.status")
    assert ours.stray_heartbeats == "acme.heartbeat.>"
    assert ours.worker_of("acme.heartbeat.a.b") == ours.stray_worker("acme.heartbeat.a.b") == "a.b"
    assert ours.mapping(4) == '"acme.heartbeat.>": "acme.4.{{partition(4)}}.heartbeat.>"'


@pytest.mark.parametrize("index", range(5))
def test_an_echo_comes_to_its_own_share(index: int) -> None:
    """It takes the way of the heartbeats, so that it shows whether those come here."""
    ours = Subjects("acme", Share(index, 5))
    echo = ours.echo("x")

    assert echo.startswith(f"acme.heartbeat.{OWN}echo.x")
    assert fnv(echo.encode()) % 5 == index


@pytest.mark.parametrize(
    ("subject", "worker"),
    [
        ("acme.4.2.heartbeat.a.b", "a.b"),
        ("acme.4.2.heartbeat.x.heartbeat.y", "x.heartbeat.y"),
        # Heard on the same subscription, and something else.
        ("acme.heartbeat.x.heartbeat.y", None),
        ("acme.goodbye.x.heartbeat.y", None),
        ("acme.goodbye.1.heartbeat.y", None),
    ],
)
def test_who_owns_everybody_knows_a_divided_heartbeat(subject: str, worker: str | None) -> None:
    """And takes nothing else for one: a goodbye is no sign of life."""
    assert Subjects("acme").stray_worker(subject) == worker


def test_a_name_that_is_too_long_has_an_owner() -> None:
    """One, and the rest of it is not looked at: there may be kilobytes."""
    name = "x" * 255
    subjects = Subjects("acme")

    assert subjects.hash_of(name + "y" * 10_000) == subjects.hash_of(name)
    assert subjects.hash_of(name[:-1]) != subjects.hash_of(name)


def test_it_is_known_whose_a_worker_is() -> None:
    """By its shard, where there are any."""
    subjects = Subjects("liveness", Share(1, 4))

    assert (subjects.owner_of("w1"), subjects.owner_of("y"), Subjects().owner_of("w1")) == ("0/4", "3/4", "")
