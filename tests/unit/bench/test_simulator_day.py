"""Large runs in small: disciplines over one trace, and what is counted of them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.simulator.__main__ import main
from bench.simulator.day import Day, Scenario
from bench.simulator.disciplines import DISCIPLINES
from bench.simulator.faults import Faults
from bench.simulator.report import table
from bench.simulator.tally import jain
from bench.simulator.trace import HABITS, trace

DAY = Scenario(gpus=12, users=12_000, hours=0.5, from_hour=19.5, load=1.2)
FAULTS = Faults(crash=1, hang=1, cut=1, replica=10, flush=6, queue=6, database=6, fail=0.01)


def test_a_trace_offers_the_load_and_the_users_that_were_asked_for() -> None:
    drawn = trace(seed=3, gpus=200, users=20_000, hours=24, from_hour=0, load=0.5)
    offered = drawn.took_ms.sum() / 1000 / (200 * 24 * 3_600)
    assert offered == pytest.approx(0.5, rel=0.15)
    assert np.all(np.diff(drawn.at_s) >= 0)
    jobs = Counter(drawn.plan_of(user) for user in drawn.user.tolist())
    assert set(jobs) == set(HABITS)
    night = ((drawn.at_s > 7 * 3_600) & (drawn.at_s < 9 * 3_600)).sum()
    evening = ((drawn.at_s > 19 * 3_600) & (drawn.at_s < 21 * 3_600)).sum()
    assert evening > 2 * night


@pytest.mark.parametrize("name", list(DISCIPLINES))
def test_under_each_discipline_all_that_was_accepted_ends(name: str) -> None:
    result = Day(replace(DAY, discipline=name, faults=FAULTS)).run()
    assert result["accepted"] == result["ended"] > 100
    tiers = result["tiers"].values()
    assert sum(tier["accepted"] for tier in tiers) == result["accepted"]
    for tier in tiers:
        assert tier["accepted"] == tier["succeeded"] + tier["failed"] + tier["given_up"]
    assert 0.5 < result["busy"] <= 1.0


def test_all_disciplines_are_offered_the_same_jobs() -> None:
    offered = set()
    for name in DISCIPLINES:
        tiers = Day(replace(DAY, discipline=name)).run()["tiers"]
        offered.add(tuple(tier["accepted"] + tier["refused"] for tier in tiers.values()))
    assert len(offered) == 1


def test_when_all_wait_the_tiers_share_by_weight() -> None:
    eager = {"free": 12, "pro": 12, "enterprise": 4}
    result = Day(Scenario(gpus=12, users=100, hours=4, load=0, eager=eager)).run()
    shares = {name: tier["share"] for name, tier in result["tiers"].items()}
    assert shares["enterprise"] == pytest.approx(16 / 21, abs=0.03)
    assert shares["pro"] == pytest.approx(4 / 21, abs=0.03)
    assert shares["free"] == pytest.approx(1 / 21, abs=0.02)
    assert result["eager"]["pro"]["jain"] > 0.98


def test_jains_index() -> None:
    assert jain(np.array([2.0, 2.0, 2.0])) == pytest.approx(1.0)
    assert jain(np.array([1.0, 0.0, 0.0, 0.0])) == pytest.approx(0.25)
    assert jain(np.array([0.0])) == 1.0


def test_the_command_line_prints_a_table_and_reads_its_own_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--gpus", "4", "--users", "2000", "--hours", "0.2", "--discipline", "easel"]
    assert main(["day", *small, "--json"]) == 0
    written = capsys.readouterr().out
    (tmp_path / "easel.json").write_text(written)
    assert main(["report", str(tmp_path / "easel.json")]) == 0
    assert capsys.readouterr().out.strip() == table(json.loads(written))
    assert main(["check", "--count", "1", "--steps", "300"]) == 0
    assert "0 broke an invariant" in capsys.readouterr().out
