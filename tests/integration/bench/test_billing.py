"""The hold benchmark, with next to no holds."""

from pathlib import Path

import pytest

from bench.billing.__main__ import measure
from bench.billing.campaign import Plan
from bench.billing.ways import WAYS
from bench.queue.servers import serving

_TINY = Plan(rounds=2, holds=30, connections=4)


@pytest.mark.timeout(150)
async def test_every_way_grants_exactly_what_there_is(tmp_path: Path) -> None:
    async with serving(tmp_path) as servers:
        campaign = await measure(servers, _TINY)
    assert sorted(campaign.results) == sorted(way.name for way in WAYS)
    for result in campaign.results.values():
        assert len(result.holds_per_s) == len(result.p99_ms) == _TINY.rounds
        assert result.granted == [18, 18]
        assert result.wrong_by == [0, 0]
    assert campaign.breaches == 0
