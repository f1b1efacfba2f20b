"""The status page in a real browser."""

import pytest
from nats.aio.client import Client

from liveness.page import routes
from tests.conftest import HostTables, delivered
from tests.integration.running import Serve, beat
from tests.screenshots.browser import browser, find, until

HOSTILE = "<img/src=x/onerror=hacked()>"
CHROMIUM = find()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: on Debian, apt-get install chromium")
async def test_the_page_is_live_and_nothing_of_a_worker_s_is_carried_out(
    serve: Serve, host: HostTables, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes and goes shows by itself, leases run down, the focus stays, what is stale is grey; no complaint.

    Streams end all the while, and nobody sees it.
    """
    assert CHROMIUM is not None
    monkeypatch.setattr(routes, "STREAM_SECONDS", 0.3)
    service = await serve(heartbeat_timeout=60, workflow_stuck_timeout=60)
    (work,) = await host.workflows("w1")
    await beat(client, "w1", incarnation=HOSTILE)
    await beat(client, HOSTILE, ttl=50, incarnation="i")
    async with browser(CHROMIUM) as tab:
        await tab.look(width=390, dark=True)
        await tab.go(f"http://127.0.0.1:{service.http.port}/")
        await tab.value(until("document.querySelectorAll('tr[data-key]').length === 2"))
        await tab.value("document.querySelector('tr[data-key=w1] a').focus()")
        await tab.value(
            "window.stale = 0; new MutationObserver(() => {"
            " window.stale += document.body.classList.contains('stale');"
            " }).observe(document.body, { attributes: true })"
        )
        # Between what the service says of it.
        bar = "document.querySelector('progress')"
        await tab.value(until(f"{bar}.value < {bar}.dataset.left - 0.1"))
        await client.publish(f"liveness.goodbye.{HOSTILE}", b'{"incarnation": "i"}')
        await beat(client, "w2")
        await delivered(client)
        await tab.value(until("document.querySelector('#ends + ol a')?.textContent.includes('onerror')"))
        await tab.value(until("document.querySelector('tr[data-key=w2]')"))
        rows = "[...document.querySelectorAll('tr[data-key]')].map(row => row.dataset.key)"
        assert await tab.value(rows) == ["w1", "w2"]
        assert await tab.value("document.activeElement.textContent") == "w1"
        assert await tab.value("document.querySelectorAll('main img, main script').length") == 0
        assert await tab.value("document.documentElement.scrollWidth") <= 390
        streams = "performance.getEntriesByType('resource').filter(entry => entry.name.endsWith('/events')).length"
        await tab.value(until(f"{streams} > 1"))
        assert await tab.value("window.stale") == 0
        filters = "[...document.getElementById('part').children].map(one => getComputedStyle(one).filter)"
        assert set(await tab.value(filters)) == {"none"}
        assert set(await tab.value(f"document.body.classList.add('stale'), {filters}")) == {"grayscale(1)"}
        await tab.go(f"http://127.0.0.1:{service.http.port}/why/{work}")
        assert HOSTILE in await tab.value("document.querySelector('table').textContent")
        assert tab.complaints == []
