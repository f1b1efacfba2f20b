"""Files with a secret in them: read anew whenever it is needed, and complained of without what is in them."""

import os
import stat
from pathlib import Path
from typing import Final, NoReturn

from liveness.errors import AccessError

# No file of these is longer; what is, is none of them.
MOST_BYTES: Final = 1 << 20


def content_of(setting: str, path: str | Path) -> bytes:
    """Return what is in the file that `setting` names. Raises AccessError for one that cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return file.read(MOST_BYTES)
    except OSError as error:
        unusable(setting, path, f"cannot be read: {error.strerror or error}")


def secret_of(setting: str, path: str | Path) -> str:
    """Return the text that is in it, without the white space around. Raises AccessError, for none at all, too."""
    try:
        text = content_of(setting, path).decode().strip()
    except UnicodeDecodeError:
        text = ""
    if not text:
        unusable(setting, path, "is empty, or no text")
    return text


def doubt_of(setting: str, path: str | Path) -> str | None:
    """Return what is wrong with a file that others than we may read, in one line."""
    try:
        there = Path(path).stat()
    except OSError:
        # That it is not there is said when it is needed.
        return None
    # What is somebody else's we can only read by its group, or as others: so does Kubernetes give secrets.
    others = stat.S_IROTH | (stat.S_IRGRP if there.st_uid == os.geteuid() else 0)
    if not there.st_mode & others:
        return None
    return f"{setting} = {str(path)!r} can be read by others ({stat.S_IMODE(there.st_mode):04o}): chmod 0400 it"


def unusable(setting: str, path: str | Path, why: str) -> NoReturn:
    """Raise AccessError for a file, without what Python knows of the cause: it may have pieces of the secret in it."""
    raise AccessError(f"{setting} = {str(path)!r} {why}") from None
