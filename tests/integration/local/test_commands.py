"""The commands around a stack, without one and with one of stand-ins."""

from pathlib import Path

import pytest

from easel_local.cli.main import main
from easel_local.runner.assembly import service_of
from easel_local.runner.settings import load_local_settings
from easel_local.runner.state import State
from easel_local.runner.table import port_names


@pytest.mark.parametrize("command", [["status"], ["token", "--user", "alice"], ["ledger-check"]])
def test_a_command_that_needs_a_stack_says_how_to_start_one(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--state", str(tmp_path)]) == 1
    assert "make up" in capsys.readouterr().err


def test_down_without_a_stack_is_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["down", "--state", str(tmp_path)]) == 0
    assert "no stack runs" in capsys.readouterr().out


def test_clean_removes_the_folder(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    state.folder.mkdir()
    state.secret("database.billing")
    assert main(["clean", "--state", str(state.folder)]) == 0
    assert not state.folder.exists()


def test_logs_shows_the_end_of_each_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "billing.log").write_text("one\ntwo\n")
    (folder / "gateway.log").write_text("three\n")
    assert main(["logs", "--state", str(tmp_path), "-n", "1"]) == 0
    assert capsys.readouterr().out == "==> billing\ntwo\n==> gateway\nthree\n"
    assert main(["logs", "--state", str(tmp_path), "billing"]) == 0
    assert capsys.readouterr().out == "one\ntwo\n"
    assert main(["logs", "--state", str(tmp_path), "stripe"]) == 1
    assert "stripe" in capsys.readouterr().err


def test_a_command_sees_a_service_as_it_was_started(tmp_path: Path) -> None:
    """Of a stack with no worker and two schedulers, whatever a new one would have."""
    state = State(tmp_path / "state")
    state.folder.mkdir()
    asked = load_local_settings(state=state.folder)
    started = asked.model_copy(update={"worker_count": 0, "scheduler_count": 2})
    names = [*port_names(started), "gateway", "postgres", "redis"]
    ports = {name: 7_000 + place for place, name in enumerate(names)}
    env = service_of(asked, state, ports, "billing").env
    assert env["BILLING_LISTEN"] == f"127.0.0.1:{ports['billing']}"
    both = [f"127.0.0.1:{ports[name]}" for name in ("scheduler", "scheduler-2")]
    assert env["BILLING_SCHEDULER_ADDRESS"] == ",".join(both)


def test_a_wrong_size_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--prompt", "a pear", "--out", "x.png", "--size", "huge"])
    assert ended.value.code == 2
    assert "'huge' is no size" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_named_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "missing" / "x.png"
    state = tmp_path / "state"
    wish = ["demo", "--prompt", "a pear", "--out", str(out), "--state", str(state)]
    assert main(wish) == 2
    assert "x.png" in capsys.readouterr().err.replace("\n", "")
    assert not state.exists()


def test_a_wrong_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATEWAY_PORT", "high")
    assert main(["status"]) == 2
    assert "GATEWAY_PORT" in capsys.readouterr().err


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_PORT", "9000")
    monkeypatch.setenv("WORKER_COUNT", "3")
    settings = load_local_settings(gateway_port=9001, worker_count=None)
    assert (settings.gateway_port, settings.worker_count) == (9001, 3)
