"""A temporary folder that does not stay for ever when its owner is killed."""

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Final, Self

from liveness.embedded.claim import FolderClaim, process_exists

PREFIX: Final = "liveness-embedded-"
NAME: Final = re.compile(rf"{PREFIX}(?P<owner>\d+)-\w+")


class TemporaryFolder:
    """A folder of this process in the system's folder for temporary files, open to this user alone."""

    def __init__(self, path: Path, claim: FolderClaim) -> None:
        self.path: Final = path
        self._claim: Final = claim

    @classmethod
    def make(cls) -> Self:
        """Make a folder, after removing those whose owner was killed; raises OSError when that fails."""
        for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            _remove_when_left_over(path)
        path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        claim = FolderClaim.attempt(path)
        if claim is None:
            raise BlockingIOError(f"{path} was claimed by another process as soon as it was made")
        return cls(path, claim)

    def remove(self) -> None:
        """Delete the folder and all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._claim.release()


def _remove_when_left_over(path: Path) -> None:
    """Delete a folder of this user whose owner is gone and which no running process claims."""
    name = NAME.fullmatch(path.name)
    try:
        status = path.lstat()
        if name is None or path.is_symlink() or status.st_uid != os.geteuid() or process_exists(int(name["owner"])):
            return
        # The number alone does not say enough: an owner in another container has it in another namespace.
        claims = [FolderClaim.attempt(lock.parent) for lock in path.glob("**/lock")]
        if None not in claims:
            shutil.rmtree(path, ignore_errors=True)
        for claim in claims:
            if claim is not None:
                claim.release()
    except OSError:
        # Somebody else is deleting it at this moment.
        return
