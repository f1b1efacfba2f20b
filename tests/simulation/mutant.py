"""A deliberately wrong version of one thing, and how a family of them is written down."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, TypeVar
from unittest import mock

Wrong = TypeVar("Wrong", bound=Callable[..., object])


class Mutant(NamedTuple):
    """A wrong version of one thing: `attribute` of `owner` is `wrong`, and the schedule of `seed` breaks `rule`."""

    name: str
    rule: str
    seed: int
    owner: object
    attribute: str
    wrong: object

    def applied(self) -> AbstractContextManager[Any]:
        """Let the code be wrong for a while."""
        return mock.patch.object(self.owner, self.attribute, self.wrong)


class Family(dict[str, Mutant]):
    """Mutants by name."""

    def wrong(self, rule: str, seed: int, owner: object, attribute: str) -> Callable[[Wrong], Wrong]:
        """Note a wrong method or function under its name."""

        def note(wrong: Wrong) -> Wrong:
            self.constant(wrong.__name__, rule, seed, owner, attribute, wrong)
            return wrong

        return note

    def constant(self, name: str, rule: str, seed: int, owner: object, attribute: str, wrong: object) -> None:
        """Note a wrong constant."""
        self[name] = Mutant(name, rule, seed, owner, attribute, wrong)
