"""Commands about a stack that runs in another process: from down to audit-verify and clean."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from easel_kit.errors import DependencyDown, InvalidState, NotFound
from easel_local.postgres_install import shared_home
from easel_local.process import tail
from easel_local.runner.assembly import environment_of, service_of
from easel_local.runner.health import Health, answers
from easel_local.runner.settings import LocalSettings
from easel_local.runner.state import State

_STOP_DEADLINE_S = 60.0
_POLL_S = 0.05
_FOLLOW_S = 0.3
_TOKEN_DEADLINE_S = 5.0
_CHECK_DEADLINE_S = 600.0


def down(settings: LocalSettings, _arguments: argparse.Namespace) -> int:
    """Stop the stack and wait until it is gone."""
    if _stop(State(settings.state)):
        print("stopped")
    else:
        print(f"no stack runs in {settings.state}")
    return 0


def clean(settings: LocalSettings, _arguments: argparse.Namespace) -> int:
    """Stop the stack and remove everything it kept."""
    state = State(settings.state)
    demo = State(settings.state / "demo")
    for one in (state, demo):
        _stop(one)
        shutil.rmtree(shared_home(one.postgres), ignore_errors=True)
    shutil.rmtree(state.folder, ignore_errors=True)
    print(f"removed {settings.state}")
    return 0


def token(settings: LocalSettings, arguments: argparse.Namespace) -> int:
    """Print an access token, and nothing else, on stdout."""
    report = _running_report(settings)
    wanted: dict[str, Any] = {
        "user": arguments.user,
        "groups": arguments.group,
        "ttl_s": arguments.ttl,
    }
    if arguments.plan:
        wanted["plan"] = arguments.plan
    try:
        answer = httpx.post(
            f"{report['issuer_url']}/token", json=wanted, timeout=_TOKEN_DEADLINE_S, trust_env=False
        )
    except httpx.HTTPError as error:
        raise DependencyDown(f"the token issuer does not answer: {error}") from error
    if answer.status_code != httpx.codes.OK:
        for problem in answer.json().get("errors", []):
            print(f"{problem['field']}: {problem['reason']}", file=sys.stderr)
        return 2
    print(answer.json()["access_token"])
    return 0


def status(settings: LocalSettings, _arguments: argparse.Namespace) -> int:
    """Print a table of the services; 1 when one of them is not well."""
    report = _running_report(settings)
    rows = asyncio.run(_rows(report))
    print(f"gateway {report['gateway_url']}   process {report['runner_pid']}\n")
    print(f"{'service':<18}{'phase':<12}{'health':<9}{'pid':<9}{'restarts':<10}address")
    for row in rows:
        print(f"{row[0]:<18}{row[1]:<12}{row[2]:<9}{row[3]:<9}{row[4]:<10}{row[5]}")
    return 0 if all(row[1] in {"ready", "done"} and row[2] != "bad" for row in rows) else 1


def logs(settings: LocalSettings, arguments: argparse.Namespace) -> int:
    """Print the last lines of one log or of all, and what is added while following."""
    folder = State(settings.state).logs
    files = sorted(folder.glob("*.log"))
    if arguments.service:
        files = [file for file in files if file.stem == arguments.service]
    if not files:
        raise NotFound("log", arguments.service or str(folder))
    for file in files:
        if len(files) > 1:
            print(f"==> {file.stem}")
        print(tail(file, arguments.lines))
    if arguments.follow:
        for line in _added_lines(files):
            print(line, end="", flush=True)
    return 0


def ledger_check(settings: LocalSettings, _arguments: argparse.Namespace) -> int:
    """Check the ledger by billing's own command; 1 when something does not add up."""
    return _ask_billing(settings, "ledger-check")


def audit_verify(settings: LocalSettings, _arguments: argparse.Namespace) -> int:
    """Check the audit log by billing's own command; 1 when something was changed."""
    return _ask_billing(settings, "audit-verify")


def _ask_billing(settings: LocalSettings, command: str) -> int:
    report = _running_report(settings)
    service = service_of(settings, State(settings.state), report["ports"], "billing")
    done = subprocess.run(  # noqa: S603 (our own module)
        [sys.executable, "-m", "billing", command],
        env=environment_of(service),
        check=False,
        timeout=_CHECK_DEADLINE_S,
    )
    return done.returncode


def _added_lines(files: list[Path]) -> Iterator[str]:
    ends = {file: file.stat().st_size for file in files}
    while True:
        time.sleep(_FOLLOW_S)
        for file in files:
            size = file.stat().st_size
            if size != ends[file]:
                with file.open(errors="replace") as opened:
                    opened.seek(ends[file] if size > ends[file] else 0)
                    yield from opened
                ends[file] = size


def _stop(state: State) -> bool:
    """Ask the runner to end and wait for it; False when there is none.

    Raises:
        DependencyDown: it is still there after a minute.
    """
    if not state.is_held():
        return False
    pid = state.read_report().get("runner_pid")
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_DEADLINE_S
    while state.is_held():
        if time.monotonic() > deadline:
            raise DependencyDown(f"the stack of {state.folder} (process {pid}) does not stop")
        time.sleep(_POLL_S)
    return True


def _running_report(settings: LocalSettings) -> dict[str, Any]:
    state = State(settings.state)
    if not state.is_held():
        raise InvalidState(f"no stack runs in {settings.state}: start one with `make up`")
    return state.read_report()


async def _rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    async def health(name: str, address: str) -> str:
        match name:
            case "gateway":
                question = Health("http", f"http://{address}/readyz")
            case "issuer" | "stripe":
                question = Health("http", f"http://{address}/healthz")
            case "postgres" | "redis" | "database":
                return "-"
            case _ if name.startswith("migrate-"):
                return "-"
            case _:
                question = Health("grpc", address)
        return "good" if await answers(question) else "bad"

    services = report["services"]
    found = await asyncio.gather(*(health(n, s["address"]) for n, s in services.items()))
    return [
        (name, s["phase"], state, str(s["pid"] or "-"), str(s["restarts"]), s["address"])
        for (name, s), state in zip(services.items(), found, strict=True)
    ]
