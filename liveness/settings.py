"""The settings: one flat namespace, from a TOML file and the environment. Pure but for reading that file.

`heartbeat_timeout` in TOML is `LIVENESS_HEARTBEAT_TIMEOUT` in the environment, and the environment wins. Durations
are seconds. Nonsense is refused at start; doubtful relations between durations are returned as warnings.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from liveness.errors import SettingsError
from liveness.http_settings import HttpSettings
from liveness.postgres_settings import holds_secret
from liveness.secret_files import doubt_of
from liveness.share import parsed
from liveness.subjects import Subjects
from liveness.tables import Tables, tables
from liveness.work import WorkTable

PREFIX = "LIVENESS_"

# Words of the environment that begin like settings and are none: the file's path, the embedded servers' binaries,
# and the identity that a supervisor hands to its command.
_NOT_SETTINGS = {"CONFIG", "PG_BIN", "WORKER", "EPOCH", "INCARNATION"}

# What may hold a password, so that nobody is shown it.
_SECRET: Final = frozenset({"postgres_dsn", "nats_url", "nats_system_url", "nats_password", "nats_token", "http_token"})

# Former processes of a name are known for so long (seconds): a beat of one of them is of the past.
_LEAST_RETENTION: Final = 86_400

Duration = Annotated[float, Meta(gt=0, le=315_360_000)]
OptionalDuration = Annotated[float, Meta(ge=0, le=315_360_000)]


class Settings(HttpSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings with their defaults. The three of the original bug report keep their names and values."""

    mode: Annotated[
        Literal["act", "observe"],
        Meta(description="`observe` decides, records and shows, and touches nothing of the host's."),
    ] = "act"
    heartbeat_timeout: Annotated[Duration, Meta(description="The ttl of a worker that states none.")] = 60.0
    stale_worker_check_interval: Annotated[Duration, Meta(description="Time between two sweeps.")] = 30.0
    workflow_stuck_timeout: Annotated[
        Duration, Meta(description="How long an orphan must have been untouched before the sweep takes it.")
    ] = 120.0
    min_ttl: Annotated[Duration, Meta(description="A stated ttl below this counts as this.")] = 1.0
    max_ttl: Annotated[Duration, Meta(description="A stated ttl above this counts as this.")] = 3600.0
    # 40 MB of leases, and 0.6 GB where each name is used for as many processes as can be. The bound is for strangers:
    # whoever Postgres knows comes in all the same.
    max_workers: Annotated[
        int, Meta(ge=1, le=2**31, description="Names in all beyond which none is let in that Postgres does not know.")
    ] = 100_000
    # Each costs a row, an end and an event, in the end; a hundred a second take Postgres a few per cent of a core.
    max_grants: Annotated[
        float,
        Meta(ge=0, le=1_000_000, description="Names a second that are let in though Postgres does not know them."),
    ] = 100.0
    checkpoint_interval: Annotated[
        OptionalDuration,
        Meta(description="How often `last_heartbeat_at` is refreshed, in batches; 0 turns it off."),
    ] = 20.0
    register_unknown_workers: Annotated[
        bool, Meta(description="Give a worker that beats and has no row in the host's table one.")
    ] = False
    subject_prefix: Annotated[
        str, Meta(pattern=r"^[^\s.*>]+(\.[^\s.*>]+)*(?![\s\S])", description="First part of every subject.")
    ] = "liveness"
    events_stream: Annotated[
        str, Meta(pattern=r"^[^\s.*>/\\]+(?![\s\S])", description="The JetStream stream of the events.")
    ] = "LIVENESS_EVENTS"
    event_prefix: Annotated[
        str,
        Meta(
            pattern=r"^([^\s.*>]+(\.[^\s.*>]+)*)?(?![\s\S])",
            description="Put before the events' subjects, with a dot; empty for none.",
        ),
    ] = ""
    events_max_age: Annotated[Duration, Meta(description="How long the stream keeps an event.")] = 604_800.0
    events_max_bytes: Annotated[
        int, Meta(ge=1_048_576, le=2**53, description="How many bytes of events the stream keeps.")
    ] = 1_073_741_824
    # Of 100,000 rows of a thousand workers, put back by the statements alone (no service, no relay; a busy machine):
    # 3.2 s at 2,000, 2.4 s at 5,000, 2.3 s at 10,000; and the first rows are back the sooner the smaller it is.
    reclaim_chunk: Annotated[
        int, Meta(ge=1, le=100_000, description="Rows at most that one reclaim statement takes.")
    ] = 5_000
    lock_timeout: Annotated[
        Duration, Meta(description="How long a statement may wait for a lock before the next pass takes over.")
    ] = 1.0
    retention: Annotated[
        OptionalDuration,
        Meta(description="How long it is kept why lives ended and what went back; 0: for ever."),
    ] = 7_776_000.0
    crash_budget: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000,
            description="Workers that work may crash within `crash_window` before it is noticed; 0: any.",
        ),
    ] = 3
    crash_window: Annotated[Duration, Meta(description="For how long a crash counts against the work.")] = 86_400.0
    crash_action: Annotated[
        Literal["report", "quarantine"],
        Meta(description="What becomes of work that crashed so many: it goes back and is told of, or is set aside."),
    ] = "report"
    quarantine_status: Annotated[
        str, Meta(max_length=256, description="The status of work that is set aside; the host must not hand it out.")
    ] = ""
    echo_interval: Annotated[
        Duration, Meta(description="Time between two echoes, by which the service knows that it hears.")
    ] = 0.02
    max_gap: Annotated[
        Duration, Meta(description="An echo that took longer, or came so late after one, is a gap in hearing.")
    ] = 0.5
    gap_grace: Annotated[OptionalDuration, Meta(description="Hearing that every lease has left after a gap.")] = 2.0
    storm_max_hold: Annotated[
        OptionalDuration,
        Meta(description="How long lapses are held at most when nearly everybody falls silent at once; 0: for ever."),
    ] = 600.0
    leak_grace: Annotated[
        Duration,
        Meta(description="How long a worker that states `running` must leave a row out before that has leaked."),
    ] = 60.0
    leak_action: Annotated[
        Literal["report", "reclaim"],
        Meta(description="What is done about a row that leaked: it is told of, or it goes back to the queue."),
    ] = "report"
    # On by default: who states progress says that it grows while anything gets done, and nothing is taken. Five minutes
    # are longer than a slow step of most work.
    wedge_after: Annotated[
        OptionalDuration,
        Meta(description="How long `progress` may stand still while something runs; 0: for ever."),
    ] = 300.0
    mark_suspects: Annotated[
        bool, Meta(description="Mark a suspected worker's ONLINE rows DEGRADED until it is heard again.")
    ] = False
    leader_timeout: Annotated[
        Duration, Meta(description="A leader that was not seen for so long is succeeded by another replica.")
    ] = 1.0
    event_loop: Annotated[
        Literal["auto", "asyncio", "uvloop"],
        Meta(description="What `liveness serve` runs on. `auto`: uvloop where it is installed, else asyncio's own."),
    ] = "auto"
    shard: Annotated[
        str, Meta(description="Own only the share i of n of the workers, as in 0/4; every NATS server maps them so.")
    ] = ""
    log_format: Annotated[
        Literal["auto", "console", "json"], Meta(description="`auto`: console on a terminal, else JSON.")
    ] = "auto"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="Least level logged.")] = "info"
    # Of the file alone: `[[work]]` and `[registry]`.
    tables: Tables = Tables()

    def __post_init__(self) -> None:
        """Refuse values that exclude each other."""
        parsed(self.shard)
        _ = self.nats_access, self.nats_system_access
        self.check_token()
        if self.min_ttl > self.max_ttl:
            raise ValueError(f"min_ttl ({self.min_ttl:g}) is above max_ttl ({self.max_ttl:g}): lower min_ttl")
        if not self.min_ttl <= self.heartbeat_timeout <= self.max_ttl:
            raise ValueError(
                f"heartbeat_timeout ({self.heartbeat_timeout:g}) is not between min_ttl ({self.min_ttl:g}) and "
                f"max_ttl ({self.max_ttl:g}): widen those or change it"
            )
        if self.echo_interval > self.max_gap / 2:
            raise ValueError(
                f"echo_interval ({self.echo_interval:g}) is above half of max_gap ({self.max_gap:g}): every echo would "
                "be a gap; lower echo_interval"
            )

    @property
    def kept_for(self) -> float:
        """How long (seconds) it is kept why lives ended and what went back; 0: for ever."""
        return max(self.retention, self.crash_window, _LEAST_RETENTION) if self.retention else 0.0

    @property
    def registers(self) -> bool:
        """Whether a worker that beats and has no row in the registry gets one; in a registry of ours, each does."""
        return self.register_unknown_workers or self.tables.own_registry

    def quarantine_of(self, work: WorkTable) -> str | None:
        """Return the status that work is given which keeps killing its workers; None: it goes back."""
        if self.crash_action == "report" or not self.crash_budget:
            return None
        return work.quarantine or self.quarantine_status

    @property
    def subjects(self) -> Subjects:
        """The subjects, as this process has them."""
        return Subjects(self.subject_prefix, parsed(self.shard))

    def warnings(self) -> list[str]:
        """Return one line for each relation between durations that is allowed and doubtful."""
        found = []
        if self.workflow_stuck_timeout < self.heartbeat_timeout:
            found.append(
                f"workflow_stuck_timeout ({self.workflow_stuck_timeout:g}) is below heartbeat_timeout "
                f"({self.heartbeat_timeout:g}): an orphan is taken sooner than silence is believed"
            )
        if self.checkpoint_interval > self.heartbeat_timeout / 2:
            found.append(
                f"checkpoint_interval ({self.checkpoint_interval:g}) is above half of heartbeat_timeout "
                f"({self.heartbeat_timeout:g}): other readers of last_heartbeat_at may think living workers stale"
            )
        if 0 < self.storm_max_hold < self.heartbeat_timeout:
            found.append(
                f"storm_max_hold ({self.storm_max_hold:g}) is below heartbeat_timeout ({self.heartbeat_timeout:g}): a "
                "storm ends before workers that come back have had the time to say so"
            )
        if self.crash_budget and self.crash_window < self.crash_budget * self.heartbeat_timeout:
            found.append(
                f"crash_window ({self.crash_window:g}) is below crash_budget times heartbeat_timeout "
                f"({self.crash_budget} x {self.heartbeat_timeout:g}): work that silences its workers is not noticed"
            )
        if self.retention < self.kept_for:
            found.append(
                f"retention ({self.retention:g}) is below what has to be known of the past, so that much is kept: the "
                f"longer one of crash_window ({self.crash_window:g}) and a day"
            )
        if self.mark_suspects and self.tables.registry.degraded is None:
            found.append("mark_suspects marks nobody: the registry has no status for suspects; give registry.degraded")
        return found

    def clamp_ttl(self, stated: float) -> float:
        """Return the ttl (seconds) that a stated one counts as."""
        return min(max(stated, self.min_ttl), self.max_ttl)

    def __repr__(self) -> str:
        """All settings, and of those that may hold a secret only whether they are set."""
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The same for rich."""
        given = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return [(name, "(hidden)" if name in _SECRET and value else value) for name, value in given]


# What can be set in one line; and what the file describes in tables of its own.
NAMES: Final = tuple(name for name in Settings.__struct_fields__ if name != "tables")
_OF_THE_FILE: Final = ("work", "registry")


def load(environment: Mapping[str, str] | None = None, **overrides: Any) -> tuple[Settings, list[str]]:
    """Return the settings of this process and the warnings about them.

    `LIVENESS_CONFIG` names a TOML file; the environment wins over it, and `overrides` (of a command line; None
    means not given) over both. Raises SettingsError, in one line that names the setting, the value and the fix.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    from_environment, warnings = _from_environment(environment)
    path = environment.get(PREFIX + "CONFIG")
    if path:
        values.update(_from_file(Path(path)))
        secrets = sorted(name for name in _SECRET if holds_secret(name, values.get(name)))
        if secrets and (doubt := doubt_of(f"{PREFIX}CONFIG", path)):
            warnings.append(f"{doubt}, or put what is secret ({', '.join(secrets)}) elsewhere")
    values.update(from_environment)
    values.update({name: value for name, value in overrides.items() if value is not None})
    work, registry = values.pop("work", None), values.pop("registry", None)
    # Made of those two, and no setting itself.
    if "tables" in values:
        raise SettingsError(_unknown("tables"))
    try:
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(_explain(error, values)) from error
    settings = settings.with_dsn(given="postgres_dsn" in values)
    settings = msgspec.structs.replace(settings, tables=tables(work, registry, settings.postgres_schema))
    _check_quarantine(settings)
    return settings, warnings + settings.warnings()


def _check_quarantine(settings: Settings) -> None:
    for work in settings.tables.works:
        status, where = work.quarantine or settings.quarantine_status, f"{work.setting}.quarantine"
        named = where if work.quarantine else "quarantine_status"
        if status in {work.running, work.waiting}:
            raise SettingsError(
                f"{named} = {status!r} cannot be used: a {work.work} with it is handed out, or held: give a status "
                "that the host leaves alone"
            )
        if settings.crash_action == "quarantine" and not status:
            named = f"{where} or quarantine_status" if work.setting else "quarantine_status"
            raise SettingsError(
                f"crash_action = 'quarantine' needs {named}: give a status that the host leaves alone, such as FAILED"
            )


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"LIVENESS_CONFIG names {path}, which cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error


def _from_environment(environment: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    # An unknown name is no error here, unlike in the file: Kubernetes puts LIVENESS_SERVICE_HOST and the like
    # into every pod beside a service called `liveness`. Only what looks like a slip of the pen is worth a line.
    values, warnings = {}, []
    for key, value in environment.items():
        if not key.startswith(PREFIX) or key.removeprefix(PREFIX) in _NOT_SETTINGS:
            continue
        name = key.removeprefix(PREFIX).lower()
        if name in _OF_THE_FILE:
            raise SettingsError(f"{key} cannot be used: tables are described in the file that {PREFIX}CONFIG names")
        if name in NAMES:
            values[name] = value
        elif close := difflib.get_close_matches(name, NAMES, n=1, cutoff=0.8):
            warnings.append(f"{key} is no setting and is ignored: did you mean {PREFIX}{close[0].upper()}?")
    return values, warnings


def _explain(error: msgspec.ValidationError, values: Mapping[str, Any]) -> str:
    text = str(error)
    complaint, _, place = text.partition(" - at `$.")
    if place:
        name = place.rstrip("`").split(".")[0].split("[")[0]
        shown = "(hidden)" if name in _SECRET else repr(values.get(name))
        return f"setting {name} = {shown} cannot be used: {complaint[0].lower()}{complaint[1:]}"
    if "unknown field" in text:
        return _unknown(text.split("`")[1])
    return text


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, (*NAMES, *_OF_THE_FILE), n=1)
    hint = f"did you mean {close[0]}?" if close else "see the settings table in the README"
    return f"there is no setting {name}: {hint}"
