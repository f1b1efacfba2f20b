"""What commands print is read by a terminal, and much of it was chosen by workers."""

from rich.console import Console

# The columns of what goes into a pipe or a file, of which rich assumes 80.
PIPE_COLUMNS = 140


def console_for(columns: int = PIPE_COLUMNS) -> Console:
    """Return where a command prints: as wide as the terminal, or so many columns where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=columns)


def printable(text: str) -> str:
    """Return `text` without what would be a command to a terminal: workers choose their incarnation and `via`."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
