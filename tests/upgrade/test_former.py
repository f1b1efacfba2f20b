"""Which code an upgrade begins from."""

import subprocess
from pathlib import Path

import pytest

from tests.upgrade.former import MIGRATIONS, NoFormerError, find_former, git, unpack


class Repository:
    """A repository of a project like ours, in which time goes on by commits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / MIGRATIONS).mkdir(parents=True)
        (folder / "liveness").mkdir()
        self.git("init", "-q")

    def git(self, *arguments: str) -> None:
        """Do as a developer would."""
        who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false")
        subprocess.run(["git", "-C", self.folder, *who, *arguments], check=True, capture_output=True)  # noqa: S607

    def commit(self, path: str) -> str:
        """Change a file and return the commit."""
        with (self.folder / path).open("a", encoding="utf-8") as file:
            file.write("x\n")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", path)
        return git(self.folder, "rev-parse", "HEAD").decode().strip()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository with one migration."""
    made = Repository(tmp_path)
    made.commit(f"{MIGRATIONS}/0001_initial.sql")
    return made


def test_without_a_tag_it_is_what_knew_one_migration_less(repository: Repository, tmp_path: Path) -> None:
    """The code as it was just before; its schema, too, is laid where it is looked for."""
    with pytest.raises(NoFormerError, match="only one migration"):
        find_former(repository.folder)
    before = repository.commit("liveness/a.py")
    repository.commit(f"{MIGRATIONS}/0002_more.sql")
    repository.commit("liveness/b.py")
    # A mended comment adds no migration.
    repository.commit(f"{MIGRATIONS}/0002_more.sql")

    former = find_former(repository.folder)
    environment = unpack(repository.folder, former, tmp_path / "code")

    assert (former.commit, former.name) == (before, "the code before 0002_more")
    code = Path(environment["PYTHONPATH"])
    assert sorted(str(file.relative_to(code)) for file in code.rglob("*.*")) == [
        "liveness/a.py",
        f"{MIGRATIONS}/0001_initial.sql",
    ]


def test_it_is_the_newest_release_before_this_commit(repository: Repository) -> None:
    """That of this very commit is what is upgraded to; one on another branch is nothing that anybody comes from."""
    released = repository.commit("liveness/a.py")
    repository.git("tag", "v0.1.0")
    repository.git("checkout", "-q", "-b", "aside")
    repository.commit("liveness/aside.py")
    repository.git("tag", "v0.9.0")
    repository.git("checkout", "-q", "-")
    repository.commit(f"{MIGRATIONS}/0002_more.sql")
    assert find_former(repository.folder).commit == released

    repository.git("tag", "v0.2.0")
    assert find_former(repository.folder).name == "v0.1.0"


def test_without_git_nothing_can_be_told(tmp_path: Path) -> None:
    """As in what is published as an archive."""
    with pytest.raises(NoFormerError, match="git cannot tell"):
        find_former(tmp_path)
