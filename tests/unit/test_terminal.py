"""What commands print of what others have chosen."""

import pytest
from rich.table import Table

from liveness.cli.terminal import console_for, literal


@pytest.mark.parametrize("text", ["tenant:key:7", "[red]x[/red]", "a\\", "\\[x]", ":fire:"])
def test_ids_are_shown_as_they_are(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither an emoji nor markup comes of an id, nor another backslash."""
    console, table = console_for(), Table()
    table.add_column("id")
    table.add_row(literal(text))
    console.print(literal(text), highlight=False, soft_wrap=True)
    console.print(table)

    alone, *shown = capsys.readouterr().out.splitlines()
    assert alone == text
    assert f" {text} " in shown[3]


def test_what_would_be_a_command_to_a_terminal_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor in the midst of a text."""
    console_for().print(literal("a\x1b[2Jb"))
    assert capsys.readouterr().out == "a\ufffd[2Jb\n"
