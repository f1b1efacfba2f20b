"""What others have chosen, as it may be shown: names, ids, reasons, errors that have these in them. Pure."""


def printable(text: str) -> str:
    """Return `text` in one line, without what a terminal would obey, or what turns its neighbours around."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def printable_lines(text: str) -> str:
    """Return the same of a text that has lines."""
    return "\n".join(map(printable, text.split("\n")))
