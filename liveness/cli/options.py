"""Options that several commands share, and how they read the settings."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click
import msgspec

from liveness.postgres_settings import has_password, holds_secret
from liveness.settings import Settings, load

Command = TypeVar("Command", bound=Callable[..., Any])


def servers(command: Command) -> Command:
    """Add --nats-url and --postgres-dsn."""
    command = click.option("--postgres-dsn", help="The workflow server's database (LIVENESS_POSTGRES_DSN).")(command)
    return click.option("--nats-url", help="Where NATS is (LIVENESS_NATS_URL).")(command)


def shard(command: Command) -> Command:
    """Add --shard."""
    return click.option("--shard", help="Ask the shard i of n, as in 0/4 (LIVENESS_SHARD).")(command)


def as_json(command: Command) -> Command:
    """Add --json, given to the command as `json_output`."""
    return click.option("--json", "json_output", is_flag=True, help="Print one JSON object.")(command)


def settings_for(**overrides: Any) -> Settings:
    """Return the settings, with those of the command line over them; warnings go to standard error."""
    settings = worker_settings_for(**overrides)
    _warn(settings.login_warnings())
    return settings


def _shown_to_all(overrides: Mapping[str, Any]) -> list[str]:
    given = {name: overrides.get(name) or "" for name in ("postgres_dsn", "nats_url")}
    return [
        f"--{name.replace('_', '-')} has a {'password' if has_password(value) else 'token'} in it, which everybody on "
        f"this machine can see (ps): give LIVENESS_{name.upper()}, or a file"
        for name, value in given.items()
        if holds_secret(name, value)
    ]


def worker_settings_for(**overrides: Any) -> Settings:
    """Return the same for a worker, which is warned of its secrets' files by its heartbeater."""
    settings, warnings = load(**overrides)
    _warn(warnings + _shown_to_all(overrides))
    return settings


def print_json(answer: object) -> None:
    """Print what a command has to say as one JSON object."""
    text = json.dumps(msgspec.to_builtins(answer), indent=2, ensure_ascii=False)
    # What a terminal would obey stands in strings alone, where it can be written otherwise and means the same.
    click.echo("".join(one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text))


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        click.echo(f"liveness: warning: {warning}", err=True)
