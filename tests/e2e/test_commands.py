"""The commands of the README, run as a stranger runs them."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.e2e.stack import running_stack
from tests.shapes import check

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.timeout(240)]


def easel(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "easel_local", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_demo_draws_what_it_was_told_and_explains_itself(tmp_path: Path) -> None:
    out = tmp_path / "x.png"
    prompt = "a blue square on a yellow background"
    done = easel(
        *("demo", "--state", str(tmp_path / "s"), "--prompt", prompt, "--out", str(out)),
        *("--seed", "5"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert check(out.read_bytes(), prompt).colour_right
    for word in ("queued", "claimed", "first step", "done", "price", "balance"):
        assert word in done.stdout.lower(), done.stdout
    assert re.search(r"\d+ ms", done.stdout)
    assert re.search(
        r"^credits +0\.410 held, 0\.410 charged, \d+\.\d{3} left$", done.stdout, re.MULTILINE
    ), done.stdout
    assert not processes_of(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (["--prompt", ""], "prompt"),
        (["--size", "63x64"], "width"),
        (["--size", "huge"], "size"),
        (["--model", "dall-e"], "model"),
        (["--steps", "1000"], "steps"),
    ],
)
def test_a_wrong_wish_is_named_and_exits_2(tmp_path: Path, wrong: list[str], named: str) -> None:
    arguments = ["--prompt", "a red circle", *wrong]
    done = easel("demo", "--state", str(tmp_path / "s"), "--out", str(tmp_path / "x"), *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert named in (done.stdout + done.stderr).lower()
    assert not (tmp_path / "x").exists()


def test_two_stacks_side_by_side_and_data_that_lasts(tmp_path: Path) -> None:
    prompt = "a red circle on a white background"
    with running_stack(tmp_path / "one") as one, running_stack(tmp_path / "two") as two:
        assert one.url != two.url
        alice, namesake = one.client("alice"), two.client("alice")
        job = alice.wait(alice.submit(prompt)["id"])
        left = alice.settled_credits()
        assert namesake.jobs() == []
        ports = [*one.report["ports"].values(), *two.report["ports"].values()]
        status = easel("status", "--state", str(tmp_path / "one"))
        assert status.returncode == 0, status.stdout
        token = easel("token", "--state", str(tmp_path / "one"), "--user", "alice").stdout.strip()
        assert token.count(".") == 2
        checked = easel("ledger-check", "--state", str(tmp_path / "one"))
        assert (checked.returncode, checked.stdout) == (0, "ledger-check: 0 findings\n")
        verified = easel("audit-verify", "--state", str(tmp_path / "one"))
        assert verified.returncode == 0, verified.stdout + verified.stderr
        assert "audit-verify: 0 findings in" in verified.stdout
    assert not processes_of(tmp_path)
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    with running_stack(tmp_path / "one") as again:
        alice = again.client("alice")
        assert alice.job(job["id"])["state"] == "succeeded"
        assert len(alice.picture(alice.job(job["id"]))) > 100
        assert alice.settled_credits() == left
        fresh = alice.wait(alice.submit(prompt)["id"])
        assert fresh["state"] == "succeeded"


def test_a_killed_runner_leaves_no_orphan(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "easel_local", "up", "--state", str(tmp_path / "s"), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "Easel runs" in line:
            break
    assert processes_of(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    gone, alive = psutil.wait_procs(processes_of(tmp_path), timeout=15)
    assert not alive, [one.cmdline() for one in alive]
    assert gone is not None


def processes_of(folder: Path) -> list[psutil.Process]:
    """Processes whose command line or environment names the folder."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except (psutil.Error, OSError):
            continue
        if process.pid != os.getpid() and any(str(folder) in word for word in words):
            found.append(process)
    return found
