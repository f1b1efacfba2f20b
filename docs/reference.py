#!/usr/bin/env python3
"""Write the pages in docs/reference/ from the code: settings, commands, subjects, events.

    python docs/reference.py            write them
    python docs/reference.py --check    change nothing; exit 1 and name the pages that differ

The metrics are on a page with more about them, docs/metrics.md, whose table is compared with the code by a test.
"""

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, get_args

import click
import msgspec
from ruamel.yaml import YAML

from liveness.cli import commands
from liveness.eventdata import EVENT_TYPES, CloudEvent, EventHeaders
from liveness.settings import NAMES, PREFIX, Duration, Settings

ROOT: Final = Path(__file__).resolve().parents[1]
FOLDER: Final = ROOT / "docs" / "reference"
COLUMNS: Final = 100
# By their bound, durations are told from other numbers.
LONGEST: Final = get_args(Duration)[1].le

# The first setting of each group, and what the group is about.
GROUPS: Final = {
    "nats_url": "NATS",
    "postgres_dsn": "Postgres",
    "http_listen": "HTTP",
    "mode": "When work is given back",
    "subject_prefix": "Subjects and events",
    "reclaim_chunk": "Reclaims",
    "crash_budget": "Work that kills its workers",
    "echo_interval": "Hearing, and storms",
    "leak_grace": "Alive, and not well",
    "leader_timeout": "Replicas, and how it runs",
}
SETTINGS: Final = f"""
From the environment, in capitals and with `{PREFIX}` in front (`{PREFIX}HEARTBEAT_TIMEOUT`), or from the TOML file
that `{PREFIX}CONFIG` names (`heartbeat_timeout`). The environment wins, and the options of a command win over both.
Durations are seconds, and may have a fraction. What cannot be used is refused at the start, in one line; what is
doubtful is warned of. Settings are read once: a changed one counts from the next start on.

Tables that are not the built-in ones are described in the file alone: [tables.md](../tables.md).
"""
COMMANDS: Final = """
Every command exits with 0 when it has done what it was asked for, with 1 when it could not, and with 2 when it was
asked in a way that makes no sense; with 130 after Ctrl-C. But for these: `run` exits as its COMMAND did (128 and the
number of the signal that ended it), `check` with 1 when it has something to say (`--least`), `why` with 1 when nothing
is known of what was asked. What went wrong is one line. Settings that have no option here come from where all of them
do: [settings.md](settings.md).

The shell completes commands and options after this line, which belongs into `~/.bashrc`:

```sh
eval "$(_LIVENESS_COMPLETE=bash_source liveness)"
```

For zsh it is `zsh_source`; for fish `_LIVENESS_COMPLETE=fish_source liveness | source`.
"""
EVENTS: Final = """
Each is a message on the JetStream stream `LIVENESS_EVENTS` (`events_stream`): a CloudEvent 1.0 in JSON. It is
published after the transaction that it tells of, at least once. Drop repeats by `id`, which never changes. `null` is
possible where it says so. Fields may be added; whoever reads ignores those that it does not know. The schemas are in
[`schemas/messages`](../../schemas/README.md), `workflow.reclaimed` in `workflow-reclaimed.json`, and so on.

Work of tables that you describe yourself has events of its own name: with `name = "job"` they are `job.reclaimed` and
so on, the id is `job_id`, and all else is as below. See [tables.md](../tables.md).
"""


def settings_page() -> Iterator[str]:
    """Return the page of the settings, in parts."""
    yield SETTINGS
    properties = msgspec.json.schema(Settings)["$defs"]["Settings"]["properties"]
    for name in NAMES:
        says = properties[name]
        if name in GROUPS:
            yield f"\n## {GROUPS[name]}\n\n| setting | default | may be | |\n| --- | --- | --- | --- |\n"
        yield _row(f"`{name}`", _default(says.get("default", "")), _may_be(says), says["description"])
    missing = GROUPS.keys() - set(NAMES)
    if missing:
        raise SystemExit(f"docs/reference.py groups settings that there are none of: {', '.join(sorted(missing))}")


def commands_page() -> Iterator[str]:
    """Return the page of the commands, in parts."""
    yield COMMANDS
    group = click.Context(commands, info_name="liveness", terminal_width=COLUMNS, max_content_width=COLUMNS)
    for name in commands.list_commands(group):
        command = commands.get_command(group, name)
        if command is None:
            raise SystemExit(f"there is no command {name}")
        context = click.Context(
            command, group, info_name=name, terminal_width=COLUMNS, max_content_width=COLUMNS,
            help_option_names=["-h", "--help"],
        )  # fmt: skip
        yield f"\n## liveness {name}\n\n```text\n{command.get_help(context)}\n```\n"


def subjects_page() -> Iterator[str]:
    """Return the page of the subjects, in parts: what schemas/asyncapi.yaml says of them."""
    document: Any = YAML(typ="safe").load((ROOT / "schemas" / "asyncapi.yaml").read_text(encoding="utf-8"))
    yield "\n" + document["info"]["description"] + "\n"
    sent = {}
    for operation in document["operations"].values():
        channel = _last(operation["channel"])
        sides = ("the service", "others") if operation["action"] == "send" else ("others", "the service")
        sent[channel], answers = sides
        if (reply := operation.get("reply", {}).get("channel")) is not None:
            sent[_last(reply)] = answers
    yield "\n| subject | published by | what | message |\n| --- | --- | --- | --- |\n"
    for name, channel in document["channels"].items():
        messages = ", ".join(f"`{_last(message)}`" for message in channel["messages"].values())
        subject = f"`{channel['address']}`" if channel["address"] else f"the inbox of the request ({name})"
        yield _row(subject, sent[name], channel["description"], messages)


def events_page() -> Iterator[str]:
    """Return the page of the events, in parts."""
    yield EVENTS
    yield "\n## What all of them have\n\n" + _text_of(CloudEvent) + "\n\n"
    yield from _fields("field", CloudEvent)
    yield "\nIts headers on NATS:\n\n"
    yield from _fields("header", EventHeaders)
    yield "\n## What each of them says\n"
    for event_type, data in EVENT_TYPES.items():
        yield f"\n### {event_type}\n\n{_text_of(data)}\n\n"
        yield from _fields("data", data)


PAGES: Final[Mapping[str, tuple[str, Callable[[], Iterable[str]]]]] = {
    "settings.md": ("Settings", settings_page),
    "commands.md": ("Commands", commands_page),
    "subjects.md": ("Subjects", subjects_page),
    "events.md": ("Events", events_page),
}


def pages() -> dict[str, str]:
    """Return the text of every page by the name of its file."""
    return {
        name: f"<!-- Written by docs/reference.py, from the code. -->\n\n# {title}\n{''.join(parts())}"
        for name, (title, parts) in PAGES.items()
    }


def _fields(title: str, message: type[msgspec.Struct]) -> Iterator[str]:
    yield f"| {title} | is | |\n| --- | --- | --- |\n"
    for name, says in msgspec.json.schema(message)["$defs"][message.__name__]["properties"].items():
        branches = says.get("anyOf", [says])
        (main,) = [branch for branch in branches if branch.get("type") != "null"]
        kind = _kind(main) + (" or `null`" if len(branches) > 1 else "")
        yield _row(f"`{name}`", kind, says.get("description", main.get("description", "")))


def _kind(says: Mapping[str, Any]) -> str:
    match says:
        case {"enum": [only]}:
            return f"`{only}`"
        case {"format": "date-time"}:
            return "time"
        case {"type": "array"}:
            return "list"
        case {"type": str(kind)}:
            return {"string": "text", "integer": "whole number"}.get(kind, kind)
    return "object"


def _may_be(says: Mapping[str, Any]) -> str:
    match says:
        case {"enum": values}:
            return ", ".join(f"`{value}`" for value in values)
        case {"type": "boolean"}:
            return "`true`, `false`"
        case {"type": "number", "exclusiveMinimum": 0, "maximum": most} if most == LONGEST:
            return "seconds, above 0"
        case {"type": "number", "minimum": 0, "maximum": most} if most == LONGEST:
            return "seconds, from 0"
        case {"type": "number", "minimum": least, "maximum": most}:
            return f"a number, {least:,} to {most:,}"
        case {"type": "integer", "minimum": least, "maximum": most}:
            return f"{least:,} to {most:,}"
        case {"type": "string"}:
            return "text"
    raise SystemExit(f"docs/reference.py has no words for {says}")


def _default(value: Any) -> str:
    shown = f"{value:.15g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else value
    return "(none)" if shown == "" else f"`{shown}`"


def _last(reference: Mapping[str, str]) -> str:
    return reference["$ref"].rpartition("/")[2]


def _text_of(message: type[msgspec.Struct]) -> str:
    """Return what it says of itself, without the name of the event that stands above it."""
    text = re.sub(r"^(`[a-z.]+`( and )?)+: ", "", inspect.cleandoc(message.__doc__ or ""))
    return text[0].upper() + text[1:] if text[0].isalpha() else text


def _row(*cells: str) -> str:
    return "| " + " | ".join(re.sub(r"\s+", " ", cell).replace("|", "\\|").strip() for cell in cells) + " |\n"


def main() -> int:
    """Write what differs, or with --check only name it."""
    parser = argparse.ArgumentParser(description="Write the pages in docs/reference/ from the code.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 and name the pages that differ")
    only_check = parser.parse_args().check
    wanted = pages()
    present = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
    names = sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))
    for name in names:
        sys.stdout.write(f"docs/reference/{name} {'differs from the code' if only_check else 'written'}\n")
        if only_check:
            continue
        if name in wanted:
            FOLDER.mkdir(exist_ok=True)
            (FOLDER / name).write_text(wanted[name], encoding="utf-8")
        else:
            (FOLDER / name).unlink()
    if names and only_check:
        sys.stdout.write("run: python docs/reference.py\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
