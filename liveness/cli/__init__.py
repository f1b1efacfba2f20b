"""The commands.

Each lives in a file of its own and is imported when it is called, so that `liveness --help` works where only the
worker's side is installed. Every command exits 0 on success, 1 on failure, 2 on wrong use, and says in one line what
went wrong.
"""

import importlib
import sys
from collections.abc import Callable
from typing import Any

import click

import liveness
from liveness.errors import LivenessError, SettingsError
from liveness.shown import printable

# What each command needs beside the worker's side, and where it is.
_COMMANDS = {
    "run": ("", "liveness.cli.run"),
    "demo": ("embedded", "liveness.cli.demo"),
    "dev": ("embedded", "liveness.cli.dev"),
    "serve": ("server", "liveness.cli.serve"),
    "migrate": ("server", "liveness.cli.migrate"),
    "status": ("server", "liveness.cli.status"),
    "watch": ("server", "liveness.cli.watch"),
    "why": ("server", "liveness.cli.why"),
    "sweep": ("server", "liveness.cli.sweep"),
    "reclaim": ("server", "liveness.cli.reclaim"),
    "pause": ("server", "liveness.cli.pause"),
    "resume": ("server", "liveness.cli.resume"),
    "check": ("server", "liveness.cli.check"),
}


class _Commands(click.Group):
    def list_commands(self, _context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        extra, module = _COMMANDS[name]
        try:
            command: click.Command = importlib.import_module(module).command
        except ModuleNotFoundError as error:
            return _unavailable(name, extra, error)
        return command


def _unavailable(name: str, extra: str, error: ModuleNotFoundError) -> click.Command:
    @click.command(
        name,
        help=f"Needs: pip install 'liveness[{extra}]'",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    def unavailable() -> None:
        raise click.ClickException(
            f"`liveness {name}` needs {error.name}, which is not installed: pip install 'liveness[{extra}]'"
        )

    return unavailable


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(liveness.__version__)
def commands() -> None:
    """Dead workers' work back in the queue at once.

    Settings come from the environment (LIVENESS_...) and from the TOML file that LIVENESS_CONFIG names.
    """


def main() -> None:
    """Run the command line."""
    sys.exit(_run(commands))


def _run(group: Callable[..., Any]) -> int:
    try:
        group(standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.Abort:
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SettingsError as error:
        click.echo(f"liveness: {printable(str(error))}", err=True)
        return 2
    except LivenessError as error:
        click.echo(f"liveness: {printable(str(error))}", err=True)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
