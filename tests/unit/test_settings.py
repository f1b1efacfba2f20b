"""Settings, and what is said about bad ones."""

from pathlib import Path

import pytest

from liveness.cli.options import _shown_to_all
from liveness.errors import SettingsError
from liveness.postgres_settings import database_of
from liveness.settings import Settings, load


def test_the_defaults_are_those_of_the_bug_report() -> None:
    """60, 30 and 120 seconds."""
    settings, warnings = load({})

    assert (
        settings.heartbeat_timeout,
        settings.stale_worker_check_interval,
        settings.workflow_stuck_timeout,
    ) == (60, 30, 120)
    assert warnings == []


def test_the_environment_wins_over_the_file_and_the_command_line_over_both(tmp_path: Path) -> None:
    """In that order."""
    file = tmp_path / "liveness.toml"
    file.write_text('heartbeat_timeout = 20\nmin_ttl = 2\nmode = "observe"\n', encoding="utf-8")
    environment = {"LIVENESS_CONFIG": str(file), "LIVENESS_HEARTBEAT_TIMEOUT": "30", "LIVENESS_MIN_TTL": "3"}

    settings, _ = load(environment, min_ttl=4.0, nats_url=None)

    assert (settings.mode, settings.heartbeat_timeout, settings.min_ttl) == ("observe", 30.0, 4.0)
    assert settings.nats_url == Settings().nats_url


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"LIVENESS_HEARTBEAT_TIMEOUT": "soon"}, ["heartbeat_timeout", "'soon'", "float"]),
        ({"LIVENESS_HEARTBEAT_TIMEOUT": "0"}, ["heartbeat_timeout", "'0'", "> 0"]),
        ({"LIVENESS_STALE_WORKER_CHECK_INTERVAL": "0"}, ["stale_worker_check_interval", "> 0"]),
        ({"LIVENESS_MODE": "acting"}, ["mode", "'acting'"]),
        ({"LIVENESS_MIN_TTL": "10", "LIVENESS_MAX_TTL": "5"}, ["min_ttl (10)", "max_ttl (5)", "lower min_ttl"]),
        ({"LIVENESS_HEARTBEAT_TIMEOUT": "9999"}, ["heartbeat_timeout (9999)", "max_ttl (3600)"]),
        ({"LIVENESS_RECLAIM_CHUNK": "-1"}, ["reclaim_chunk", "'-1'"]),
        ({"LIVENESS_SUBJECT_PREFIX": "a.*"}, ["subject_prefix", "'a.*'"]),
        ({"LIVENESS_EVENTS_STREAM": "A B"}, ["events_stream", "'A B'"]),
        ({"LIVENESS_HTTP_LISTEN": "8080"}, ["http_listen", "'8080'"]),
        ({"LIVENESS_CONFIG": "/does/not/exist.toml"}, ["LIVENESS_CONFIG", "/does/not/exist.toml", "No such file"]),
    ],
)
def test_nonsense_is_refused_in_one_line(environment: dict[str, str], said: list[str]) -> None:
    """Which names the setting, the value and what would do."""
    with pytest.raises(SettingsError) as error:
        load(environment)

    text = str(error.value)
    assert "\n" not in text
    for part in said:
        assert part in text


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ('http_token = "0123456789abcdef0123456789abcdef"', "http_token"),
        ('postgres_dsn = "postgresql://me:hidden@db/flow"', "postgres_dsn"),
        ('postgres_dsn = "postgresql://me@db/flow"', ""),
        ('nats_url = "nats://hidden@a:4222"', "nats_url"),
        ('nats_url = "nats://a:4222"', ""),
    ],
)
def test_a_file_with_a_secret_in_it_that_others_may_read_is_warned_of(tmp_path: Path, text: str, secret: str) -> None:
    """Not when nobody could log in by it, and not when it is the owner's alone; and never with the secret."""
    file = tmp_path / "liveness.toml"
    file.write_text(text)
    file.chmod(0o644)
    _, warnings = load({"LIVENESS_CONFIG": str(file)})
    said = [line for line in warnings if "chmod 0400" in line]
    assert [f"({secret})" in line and "hidden" not in line for line in said] == [True] * bool(secret)

    file.chmod(0o400)
    assert not any("chmod" in line for line in load({"LIVENESS_CONFIG": str(file)})[1])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"nats_url": "nats://hidden@a:4222"}, "--nats-url has a token in it"),
        ({"nats_url": "nats://me:hidden@a:4222"}, "--nats-url has a password in it"),
        ({"postgres_dsn": "postgresql://me:hidden@db/flow"}, "--postgres-dsn has a password in it"),
        ({"nats_url": "nats://a:4222", "postgres_dsn": "postgresql://me@db/flow"}, ""),
    ],
)
def test_a_secret_on_the_command_line_is_warned_of(given: dict[str, str], said: str) -> None:
    """It stands in every list of processes; that of NATS without a password is a token."""
    lines = _shown_to_all(given)

    assert [line.startswith(said) and "hidden" not in line for line in lines] == [True] * bool(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("heartbeat_timeut = 3", "did you mean heartbeat_timeout?"),
        ("colour = 3", "there is no setting colour"),
        ("heartbeat_timeout = ", "not valid TOML"),
        ('heartbeat_timeout = "long"', "heartbeat_timeout"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """An unknown setting in the file is an error, unlike in the environment."""
    file = tmp_path / "liveness.toml"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(SettingsError, match=said.replace("?", r"\?")):
        load({"LIVENESS_CONFIG": str(file)})


@pytest.mark.parametrize(
    ("dsn", "said"),
    [
        ("postgresql://liveness:secret@db:5432/flow?sslmode=verify-full&password=secret", "flow at db:5432"),
        ("postgresql:///flow?host=/run/postgresql", "flow at /run/postgresql"),
        ("postgresql://liveness@[::1]/a%20b", "a b at [::1]"),
        ("postgresql://db", "the one at db"),
    ],
)
def test_which_database_it_is_is_said_without_the_login(dsn: str, said: str) -> None:
    """For whoever wants to know that it was the right one."""
    assert database_of(dsn) == said


def test_a_secret_is_not_shown() -> None:
    """Not even when it cannot be used."""
    with pytest.raises(SettingsError) as error:
        load({}, postgres_dsn=7)

    assert "7" not in str(error.value)


def test_what_only_looks_like_a_setting_is_let_be() -> None:
    """Kubernetes' service variables are none of ours; a slip of the pen is pointed out."""
    environment = {
        "LIVENESS_SERVICE_HOST": "10.0.0.1",
        "LIVENESS_PORT_8470_TCP": "tcp://10.0.0.1:8470",
        "LIVENESS_WORKER": "w1",
        "LIVENESS_HEARTBEAT_TIMOUT": "20",
    }

    settings, warnings = load(environment)

    assert settings == Settings()
    assert warnings == [
        "LIVENESS_HEARTBEAT_TIMOUT is no setting and is ignored: did you mean LIVENESS_HEARTBEAT_TIMEOUT?"
    ]


def test_doubtful_durations_warn_and_name_both() -> None:
    """They are allowed."""
    _, warnings = load({}, workflow_stuck_timeout=10.0, checkpoint_interval=50.0)

    assert len(warnings) == 2
    assert "workflow_stuck_timeout (10)" in warnings[0]
    assert "heartbeat_timeout (60)" in warnings[0]
    assert "checkpoint_interval (50)" in warnings[1]


@pytest.mark.parametrize(
    ("retention", "crash_window", "kept_for"),
    [(0.0, 1.0, 0.0), (1e6, 1.0, 1e6), (1e6, 2e6, 2e6), (60.0, 30.0, 86_400.0)],
)
def test_what_has_to_be_known_of_the_past_is_kept(retention: float, crash_window: float, kept_for: float) -> None:
    """Crashes that count, and former processes; that it is longer than was asked for is said."""
    settings, warnings = load({}, retention=retention, crash_window=crash_window, crash_budget=0)

    assert settings.kept_for == kept_for
    assert any(line.startswith(f"retention ({retention:g}) is below") for line in warnings) == (retention < kept_for)


def test_a_ttl_is_clamped() -> None:
    """A beat that states ten years is good for an hour, one that states nothing sensible for a second."""
    settings = Settings()

    assert settings.clamp_ttl(315_360_000.0) == 3600.0
    assert settings.clamp_ttl(-5.0) == 1.0
    assert settings.clamp_ttl(10.0) == 10.0
