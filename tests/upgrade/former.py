"""The code that an upgrade begins from: the newest release before this one, or else what knows an older schema.

It is taken from git and run in this interpreter's environment, with its own packages instead of ours.
"""

import re
import subprocess
from pathlib import Path
from typing import Final

import msgspec

MIGRATIONS: Final = "schemas/postgres/liveness"


class NoFormerError(Exception):
    """There is nothing to upgrade from; the text says why."""


class Former(msgspec.Struct, frozen=True):
    """Older code. `name` is how a person knows it."""

    commit: str
    name: str


def git(repository: Path, *arguments: str) -> bytes:
    """Return what git says. Raises NoFormerError where it cannot."""
    try:
        done = subprocess.run(["git", "-C", repository, *arguments], capture_output=True, check=True)  # noqa: S607 - by the PATH
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or str(error).encode()
        raise NoFormerError(f"git cannot tell: {said.decode(errors='replace').strip()}") from error
    return done.stdout


def find_former(repository: Path) -> Former:
    """Return the newest tag before this commit; without one, the commit before that which added the last migration.

    Raises NoFormerError.
    """
    head = _commit(repository, "HEAD")
    try:
        tag = git(repository, "describe", "--tags", "--abbrev=0", "HEAD").decode().strip()
        if _commit(repository, tag) == head:
            tag = git(repository, "describe", "--tags", "--abbrev=0", "HEAD^").decode().strip()
    except NoFormerError:
        return _before_the_last_migration(repository)
    return Former(_commit(repository, tag), tag)


def _before_the_last_migration(repository: Path) -> Former:
    listed = git(repository, "ls-tree", "--name-only", "HEAD", f"{MIGRATIONS}/").decode().split()
    numbered = sorted(path for path in listed if re.match(r"\d{4}_\w+\.sql$", Path(path).name))
    if len(numbered) < 2:
        raise NoFormerError("there is no tag before this commit, and only one migration: there is nothing older")
    last = Path(numbered[-1])
    added = git(repository, "log", "--diff-filter=A", "--format=%H", "-1", "HEAD", "--", str(last)).decode().strip()
    if not added:
        raise NoFormerError(f"there is no tag before this commit, and no commit that added {last.name} (yet)")
    return Former(_commit(repository, f"{added}^"), f"the code before {last.stem}")


def _commit(repository: Path, name: str) -> str:
    return git(repository, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").decode().strip()


def unpack(repository: Path, former: Former, folder: Path) -> dict[str, str]:
    """Lay the code into `folder`; return the environment in which a process runs it. Raises NoFormerError."""
    packed = git(repository, "archive", "--format=tar", former.commit, "liveness", "schemas")
    folder.mkdir(parents=True)
    subprocess.run(["tar", "-x", "-C", folder], input=packed, check=True)  # noqa: S607 - by the PATH
    # Before what is installed; and the folder that we are in is not looked into.
    return {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}
