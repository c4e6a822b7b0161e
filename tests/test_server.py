"""The Prefect server that all tests share answers all of them at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

SIDE_BY_SIDE = 8
RUNS = 40


@pytest.mark.slow
def test_runs_begun_side_by_side_are_all_accepted(prefect_server: str) -> None:
    """A server that opens its database more than once refuses some with HTTP 503, since others write, and clients ask
    again seconds later; or all wait for a minute. Prefect's own client would hide both."""
    with httpx.Client(base_url=prefect_server, timeout=None) as client:
        flow = client.post("/flows/", json={"name": "side-by-side"}).json()["id"]

        def begun(_: int) -> int:
            return client.post("/flow_runs/", json={"flow_id": flow, "state": {"type": "PENDING"}}).status_code

        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            assert list(pool.map(begun, range(RUNS))) == [201] * RUNS
