"""How the hold benchmark reports what it found."""

import json

from bench.billing.campaign import Plan, Result
from bench.billing.report import as_json, as_text, ratios

MACHINE = {"cores": 2, "cpu": "x", "one_commit_ms": 0.2, "load_1m": 0.1}
RESULTS = {
    "hold": Result([200, 300, 100], [1, 2, 3], [4, 5, 6], [7, 7, 7], [0, 0, 0]),
    "hold, FOR UPDATE": Result([100, 100, 100], [1, 2, 3], [4, 5, 6], [7, 7, 7], [0, 0, 3]),
}


def test_ratios_are_of_the_same_round() -> None:
    assert ratios(RESULTS) == {"hold": 2}


def test_the_table_has_medians_and_what_was_wrong() -> None:
    text = as_text(MACHINE, Plan(rounds=3), RESULTS, 1)
    lines = text.splitlines()
    assert lines[4].split() == ["hold", "200", "100", "to", "300", "2.0", "5.0", "7", "0"]
    assert lines[5].endswith(" 3")
    assert "hold 2.00 times" in text
    assert text.endswith("ledger-check: 1 findings")


def test_programs_get_every_round() -> None:
    found = json.loads(as_json(MACHINE, Plan(), RESULTS, 0))
    assert found["ways"]["hold"]["holds_per_s"] == 200
    assert found["ways"]["hold"]["rounds"]["p99_ms"] == [4, 5, 6]
    assert (found["ratios"], found["ledger_check_findings"]) == ({"hold": 2}, 0)
