"""A whole Easel of real processes for one test module, and the means to hurt it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psycopg

from easel_local.runner.database import service_url
from easel_local.runner.state import State
from easel_local.runner.table import role_passwords

_START_S = 90.0
_STOP_S = 40.0
_ANSWER_S = 40.0
_POLL_S = 0.05
_ENDED = ("succeeded", "failed", "cancelled")

Found = TypeVar("Found")


def wait_for(look: Callable[[], Found | None], what: str, *, within_s: float = 30.0) -> Found:
    """What `look` finds, asked again and again; fails with `what` when time is up."""
    deadline = time.monotonic() + within_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {within_s} s"
        time.sleep(_POLL_S)


class Stack:
    """A running stack: its doors, its database, its processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._state = State(folder)

    @property
    def report(self) -> dict[str, Any]:
        """What the runner says of itself."""
        return self._state.read_report()

    @property
    def url(self) -> str:
        return str(self.report["gateway_url"])

    def client(self, user: str, plan: str = "pro") -> User:
        """A user with a token of the stack's own issuer."""
        return User(self, self.token(user=user, plan=plan))

    def token(self, **wanted: object) -> str:
        answer = httpx.post(f"{self.report['issuer_url']}/token", json=wanted, timeout=10)
        answer.raise_for_status()
        return str(answer.json()["access_token"])

    def kill(self, service: str) -> None:
        """kill -9, then until the runner has brought it back."""
        self.signal(service, signal.SIGKILL)
        self.wait_ready(service)

    def signal(self, service: str, number: signal.Signals) -> None:
        os.kill(self.report["services"][service]["pid"], number)
        if number == signal.SIGKILL:
            self._killed = (service, self.report["services"][service]["restarts"])

    def wait_ready(self, service: str) -> None:
        """Until the service that was killed last has been started anew and is ready."""
        name, restarts = self._killed
        assert name == service

        def back() -> bool:
            found = self.report["services"][service]
            return bool(found["restarts"] > restarts and found["phase"] == "ready")

        wait_for(back, f"{service} after its death", within_s=60)

    def rows(self, service: str, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What the service's own role reads from its own schema."""
        admin = f"postgresql://x@{self.report['services']['postgres']['address']}/x"
        url = service_url(admin, service, role_passwords(self._state)[service])
        with psycopg.connect(url, autocommit=True) as connection:
            return connection.execute(query, values).fetchall()

    def log(self, service: str) -> list[dict[str, Any]]:
        """The service's log so far; what is no JSON is left out."""
        found = []
        for line in (self.folder / "logs" / f"{service}.log").read_text().splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found

    def ledger_check(self) -> subprocess.CompletedProcess[str]:
        """`python -m billing ledger-check` on this stack's ledger."""
        admin = f"postgresql://x@{self.report['services']['postgres']['address']}/x"
        url = service_url(admin, "billing", role_passwords(self._state)["billing"])
        return subprocess.run(
            [sys.executable, "-m", "billing", "ledger-check"],
            env={**os.environ, "BILLING_DATABASE_URL": url},  # noqa: TID251
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


class User:
    """One user at the gateway's door."""

    def __init__(self, stack: Stack, token: str) -> None:
        self._url = stack.url
        self._headers = {"Authorization": f"Bearer {token}"}

    def submit(self, prompt: str, **more: object) -> dict[str, Any]:
        answer = self.try_submit(prompt, **more)
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    def try_submit(self, prompt: str, **more: object) -> httpx.Response:
        return self.post("/v1/generations", {"prompt": prompt, **more})

    def get(
        self, path: str, *, params: dict[str, str | int] | None = None, follow: bool = False
    ) -> httpx.Response:
        return self._ask("GET", path, params=params, follow=follow)

    def post(self, path: str, body: object) -> httpx.Response:
        return self._ask("POST", path, body=body)

    def delete(self, path: str) -> httpx.Response:
        return self._ask("DELETE", path)

    def _ask(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str | int] | None = None,
        body: object = None,
        follow: bool = False,
    ) -> httpx.Response:
        """As a polite client does: told to ask less often, it asks again when it may."""
        while True:
            answer = httpx.request(
                method,
                f"{self._url}{path}",
                params=params,
                json=body,
                follow_redirects=follow,
                headers=self._headers,
                timeout=_ANSWER_S,
            )
            # of too many jobs the answer says how many there are now
            if answer.status_code != 429 or "current" in answer.json():
                return answer
            time.sleep(float(answer.headers["retry-after"]))

    def job(self, job_id: str) -> dict[str, Any]:
        answer = self.get(f"/v1/generations/{job_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def jobs(self) -> list[dict[str, Any]]:
        return list(self.get("/v1/generations", params={"limit": 100}).json()["items"])

    def cancel(self, job_id: str) -> httpx.Response:
        return self.delete(f"/v1/generations/{job_id}")

    def wait(self, job_id: str, *, within_s: float = 50.0) -> dict[str, Any]:
        """The job once it has ended; doors that are shut meanwhile are knocked at again."""

        def ended() -> dict[str, Any] | None:
            try:
                answer = self.get(f"/v1/generations/{job_id}")
            except httpx.TransportError:
                return None
            if answer.status_code >= 500:
                return None
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()
            return found if found["state"] in _ENDED else None

        return wait_for(ended, f"the end of {job_id}", within_s=within_s)

    def wait_running(self, job_id: str) -> None:
        """Until the first step of the job is done."""

        def runs() -> bool:
            found = self.job(job_id)
            assert found["state"] not in _ENDED, "too quick to be hurt"
            return bool(found["state"] == "running" and found["progress"]["step"] > 0)

        wait_for(runs, f"the first step of {job_id}")

    def picture(self, job: Mapping[str, Any], number: int = 0) -> bytes:
        answer = self.get(job["images"][number]["url"], follow=True)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "image/png"
        return answer.content

    def credits(self) -> dict[str, int]:
        return dict(self.get("/v1/me").json()["credits"])

    def settled_credits(self) -> int:
        """Available millicredits once nothing is held."""

        def settled() -> dict[str, int] | None:
            try:
                found = self.credits()
            except (httpx.TransportError, KeyError):
                return None
            return found if found["held_millicredits"] == 0 else None

        return wait_for(settled, "every hold settled")["available_millicredits"]


@contextlib.contextmanager
def running_stack(
    folder: Path, *, workers: int = 1, schedulers: int = 1, port: int = 0, **environment: str
) -> Iterator[Stack]:
    """`python -m easel_local up` in a folder of its own; ended by SIGINT as Ctrl-C would."""
    words = folder.with_name(f"{folder.name}.up.txt")
    with words.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "easel_local", "up", "--state", str(folder)),
                *("--port", str(port), "--workers", str(workers)),
                *("--schedulers", str(schedulers)),
            ],
            env={**os.environ, "WORKER_THREADS": "1", **environment},  # noqa: TID251
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def up() -> bool:
        assert process.poll() is None, words.read_text()
        return "Easel runs" in words.read_text()

    try:
        wait_for(up, "the stack", within_s=_START_S)
        yield Stack(folder)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
    assert process.returncode == 0, words.read_text()
