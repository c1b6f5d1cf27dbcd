"""The queue's benchmark on the scheduler alone, with next to no jobs."""

import json
from pathlib import Path

import pytest

from bench.queue.campaign import Campaign
from bench.queue.plan import Plan
from bench.queue.report import as_json, as_text
from bench.queue.servers import facts, serving

_NAME = "easel"
_TINY = Plan(
    rounds=1,
    jobs=20,
    concurrency=4,
    burst_s=0.1,
    burst_jobs=10,
    probes=3,
    low=6,
    high=2,
    kills=1,
    hung=0,
    patience_s=20,
)


@pytest.mark.timeout(150)  # it starts ten processes, whatever else the machine does
async def test_every_figure_is_found(tmp_path: Path) -> None:
    async with serving(tmp_path) as servers:
        machine = await facts(servers)
        campaign = Campaign(servers, tmp_path, _TINY, lambda _text: None)
        await campaign.run([_NAME])
    line = as_json(machine, _TINY, campaign.facts, campaign.results, 1)
    found = json.loads(line)["systems"][_NAME]["summary"]
    text = as_text(machine, _TINY, campaign.facts, campaign.results, 1)
    assert campaign.results[_NAME].trouble == []
    assert sorted(found["submits_per_s"]) == ["1", "10", "64"]
    assert found["jobs_per_s"]["median"] > 0
    assert found["cpu_ms_per_job"]["replicas"]["median"] > 0
    assert found["idle_p50_ms"]["median"] > 0
    assert found["last_rank_of_high"] <= _TINY.low + _TINY.high
    assert (found["kills"], found["not_recovered"]) == (1, 0)
    assert "jobs/s end to end" in text
