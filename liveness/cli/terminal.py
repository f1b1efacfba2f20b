"""What commands print is read by a terminal, and much of it was chosen by workers."""

from rich.console import Console
from rich.text import Text

from liveness.shown import printable

# The columns of what goes into a pipe or a file, of which rich assumes 80.
PIPE_COLUMNS = 140


def console_for(columns: int = PIPE_COLUMNS) -> Console:
    """Return where a command prints: as wide as the terminal, or so many columns where there is none."""
    # A work id may hold what would be an emoji: `a:key:1`.
    console = Console(emoji=False)
    return console if console.is_terminal else Console(width=columns, emoji=False)


def literal(text: str) -> Text:
    """Return `text` as it stands, but for what would be a command to a terminal."""
    return Text(printable(text))
