"""The example services under traffic, on the usual servers: what they accept has run, and no reload or restart shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.services.conftest import REQUESTS, Backend
from tests.services.requests_load import CONCURRENT, RequestLoad
from tests.services.servers import SERVERS, serving
from tests.support import wait_until


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SERVERS)
def test_what_a_service_accepts_has_run_and_no_request_fails_by_a_reload_or_a_restart_of_the_broker(
    name: str, backend: Backend, tmp_path: Path
) -> None:
    command, service = SERVERS[name]
    with serving(command, service, tmp_path, backend.broker.url) as server:
        with RequestLoad(server.url, CONCURRENT) as load:
            load.wait_for(REQUESTS // 4, "requests are answered")
            with server.reloading():
                load.wait_for(REQUESTS // 4, "requests are answered during the reload")
            backend.broker.node.stop()
            with server.reloading():
                backend.broker.node.start()
            load.wait_for(REQUESTS // 2, "requests are answered after the restart")
        assert load.wrong == []
        sent_before = set(re.findall(r"sent before the fork: (\S+)", server.log))
        assert bool(sent_before) == ("preload" in name)
        backend.wait_for_runs(load.accepted | sent_before)
        # What the last requests have left is still being done, perhaps.
        wait_until(lambda: server.busiest() < 0.01, 30, "no process uses 1 % of a processor without requests")
        assert server.terminate() == (0, set())
        assert not re.search("Traceback|ERROR|blocking_in_event_loop", server.log), server.log
