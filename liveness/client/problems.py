"""What goes wrong on the worker's side: logged once, remembered, and never raised."""

import logging
from collections.abc import Callable

log = logging.getLogger("liveness.client")


class Problems:
    """The problems of one `owner`; each kind is logged once until `over` is called, however often it comes."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._told: set[str] = set()
        self.last: str | None = None

    def report(self, kind: str, text: str) -> None:
        """Remember a problem, and log it unless one of its kind was logged since the last `over`."""
        self.last = text
        if kind not in self._told:
            self._told.add(kind)
            log.warning("%s: %s", self._owner, text)

    def over(self) -> None:
        """Say that things go well again, so that the next problem of any kind is logged."""
        if self._told:
            self._told.clear()
            log.info("%s: goes on", self._owner)

    def call(self, name: str, callback: Callable[[], object] | None) -> None:
        """Call what the worker gave us as `name`, if it did; what it raises is its own fault, and logged."""
        if callback is not None:
            try:
                callback()
            except Exception as error:
                self.last = f"{name} has raised {error!r}"
                log.exception("%s: %s", self._owner, self.last)
