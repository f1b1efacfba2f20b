"""What docs/stuck.md tells to enter, on work that is stuck."""

import re
from pathlib import Path

from liveness.embedded import NatsServer
from tests.conftest import HostTables

from .conftest import Serve, eventually
from .programs import programs_in

PAGE = (Path(__file__).parents[2] / "docs" / "stuck.md").read_text(encoding="utf-8")
STATUS, WHY, LOOK, TAKE, CHECK = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)


async def test_what_to_do_about_stuck_work(
    serve: Serve, host: HostTables, dsn: str, nats: NatsServer, tmp_path: Path
) -> None:
    """Why it is stuck is told, nothing is taken by looking, and an operator's word gives it back."""
    # Nobody has ever heard its owner, and the sweep comes in an hour.
    await serve(heartbeat_timeout=60, stale_worker_check_interval=3600, workflow_stuck_timeout=60)
    (work,) = await host.workflows("w1", untouched_for=3600)
    environment = {"LIVENESS_NATS_URL": nats.url, "LIVENESS_POSTGRES_DSN": dsn, "work": work}
    async with programs_in(tmp_path / "programs", environment) as programs:
        status, why, looked, checked = [await programs.sh(lines) for lines in (STATUS, WHY, LOOK, CHECK)]
        codes = [await child.end() for child in (status, why, looked)]
        # It has something to say.
        assert (codes, await checked.end()) == ([0, 0, 0], 1)
        assert "mode act" in status.lines[0]
        assert "the sweep takes it" in " ".join(why.lines)
        assert await host.state(work) == ("RUNNING", "w1")

        taken = await programs.sh(TAKE)
        assert await taken.end() == 0
    await eventually(lambda: host.state(work), lambda state: state == ("PENDING", None))
    assert await host.connection.fetchval("SELECT reason FROM liveness.expiration") == "operator"
