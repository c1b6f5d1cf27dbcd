"""The runner, with small stand-ins for the services."""

import asyncio
import json
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from easel_kit.errors import InvalidState
from easel_local.ports import free_port
from easel_local.process import StartFailed
from easel_local.runner.assembly import service_parts
from easel_local.runner.database import prepare_database, service_url
from easel_local.runner.health import Health
from easel_local.runner.part import Service
from easel_local.runner.stack import Stack
from easel_local.runner.state import State
from tests.processes import eventually, is_alive

SERVER = """
import signal, sys, http.server
def end(*_):
    print("asked to end", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer.allow_reuse_address = True
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def server(name: str, needs: tuple[str, ...] = (), stage: int = 1) -> Service:
    """A service that answers 200 and says when it is asked to end."""
    port = free_port()
    return Service(
        name=name,
        argv=("python", "-c", SERVER, str(port)),
        health=Health("http", f"http://127.0.0.1:{port}/"),
        needs=needs,
        stage=stage,
        address=f"127.0.0.1:{port}",
    )


def command(name: str, code: str, needs: tuple[str, ...] = ()) -> Service:
    """A command that runs code and ends."""
    return Service(name=name, argv=("python", "-c", textwrap.dedent(code)), needs=needs)


class Rig:
    """A stack of stand-ins in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.state = State(folder)
        self.stop = asyncio.Event()
        self.notices: list[str] = []

    @asynccontextmanager
    async def running(self, *table: Service) -> AsyncIterator[Stack]:
        with self.state.held():
            parts = service_parts(list(table), self.state)
            stack = Stack(self.state, parts, {"gateway_url": "http://x"}, self.notices.append)
            async with stack.running(self.stop):
                yield stack

    def service(self, name: str) -> dict[str, Any]:
        """What the report says of one service."""
        found: dict[str, Any] = self.state.read_report()["services"][name]
        return found

    def events(self) -> list[dict[str, Any]]:
        """What the runner wrote down."""
        lines = (self.state.logs / "runner.log").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def order(self, event: str) -> list[str]:
        """The names to which an event happened, in order."""
        return [line["name"] for line in self.events() if line["event"] == event]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "state")


async def test_parts_come_up_after_their_needs_and_go_down_in_reverse(rig: Rig) -> None:
    table = [
        server("door", needs=("core",), stage=3),
        server("core", needs=("migrate",), stage=2),
        command("migrate", "print('migrated')"),
    ]
    async with rig.running(*table):
        assert rig.order("service.ready") == ["migrate", "core", "door"]
        assert rig.service("migrate")["phase"] == "done"
        assert rig.service("door") == {
            "pid": rig.service("door")["pid"],
            "phase": "ready",
            "restarts": 0,
            "address": table[0].address,
            "log": str(rig.state.logs / "door.log"),
        }
        assert rig.state.read_report()["runner_pid"] == os.getpid()
    stopped = rig.order("service.stopped")
    assert stopped.index("door") < stopped.index("core") < stopped.index("migrate")
    assert (rig.state.logs / "core.log").read_text() == "asked to end\n"
    assert (rig.state.logs / "migrate.log").read_text() == "migrated\n"


async def test_a_killed_service_is_started_again(rig: Rig) -> None:
    async with rig.running(server("core"), server("other")):
        before, other = rig.service("core"), rig.service("other")
        os.kill(before["pid"], signal.SIGKILL)
        await eventually(lambda: rig.service("core")["restarts"] == 1, "the restart")
        await eventually(lambda: rig.service("core")["phase"] == "ready", "readiness")
        assert rig.service("core")["pid"] != before["pid"]
        assert rig.service("core")["address"] == before["address"]
        assert rig.service("other") == other
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://{before['address']}/")).status_code == 200
        assert rig.notices == ["core ended with -9 and is started again", "core is back"]


async def test_a_service_that_cannot_start_stops_the_stack_and_says_why(rig: Rig) -> None:
    broken = Service(
        name="broken",
        argv=("python", "-c", "raise SystemExit('no such plan')"),
        health=Health("http", "http://127.0.0.1:9/"),
        needs=("core",),
    )
    with pytest.raises(StartFailed, match=r"broken ended with 1[\s\S]*broken.log\n[\s\S]*no such"):
        async with rig.running(server("core"), broken):
            pytest.fail("the stack must not get ready")
    assert rig.service("core")["pid"] is None
    tries = [line for line in rig.events() if line["event"] == "service.failed"]
    assert len(tries) == 1  # the second failure is the stack's


async def test_a_service_that_refuses_its_settings_is_not_tried_twice(rig: Rig) -> None:
    with pytest.raises(StartFailed, match="refused ended with 2"):
        async with rig.running(command("refused", "import sys; print('tried'); sys.exit(2)")):
            pytest.fail("the stack must not get ready")
    assert (rig.state.logs / "refused.log").read_text() == "tried\n"


async def test_stop_during_the_start_leaves_nothing(rig: Rig) -> None:
    slow = command("slow", "import time; print('slow', flush=True); time.sleep(60)")
    log = rig.state.logs / "slow.log"

    async def run() -> None:
        async with rig.running(server("core"), slow):
            pytest.fail("the stack must not get ready")

    running = asyncio.ensure_future(run())
    await eventually(lambda: log.exists() and log.read_text() == "slow\n", "the slow start")
    await eventually(lambda: rig.service("core")["phase"] == "ready", "the other's readiness")
    pid = rig.service("core")["pid"]
    rig.stop.set()
    with pytest.raises(StartFailed, match="stopped before"):
        await running
    assert not is_alive(pid)
    assert {rig.service(name)["phase"] for name in ("core", "slow")} == {"stopped"}


async def test_one_folder_holds_one_stack(rig: Rig, tmp_path: Path) -> None:
    async with rig.running(server("core")):
        assert rig.state.is_held()
        with pytest.raises(InvalidState, match="already runs"):
            async with Rig(rig.state.folder).running(server("core")):
                pytest.fail("the folder is taken")
        async with Rig(tmp_path / "beside").running(server("core")):
            assert rig.service("core")["phase"] == "ready"
    assert not rig.state.is_held()


RUNNER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, ".")
import tests.integration.local.test_stack as stack
async def main():
    rig = stack.Rig(Path(sys.argv[1]))
    async with rig.running(stack.server("core"), stack.server("door")):
        print("ready", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a guard does it")
async def test_a_killed_runner_leaves_no_service_and_no_lock(rig: Rig) -> None:
    argv = [sys.executable, "-c", RUNNER, str(rig.state.folder)]
    runner = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    assert runner.stdout is not None
    assert await runner.stdout.readline() == b"ready\n"
    pids = [rig.service(name)["pid"] for name in ("core", "door")]
    runner.kill()
    await runner.wait()
    for pid in pids:
        await eventually(lambda pid=pid: not is_alive(pid), f"the end of {pid}")  # type: ignore[misc]
    assert not rig.state.is_held()


def test_ports_and_secrets_are_kept(tmp_path: Path) -> None:
    first, again = State(tmp_path), State(tmp_path)
    ports = first.ports(["issuer", "billing"])
    assert len(set(ports.values())) == 2
    assert again.ports(["billing", "scheduler"])["billing"] == ports["billing"]
    assert again.ports(["issuer"]) == {"issuer": ports["issuer"]}
    assert first.secret("a") == again.secret("a") != first.secret("b")
    assert (tmp_path / "secrets.json").stat().st_mode & 0o077 == 0
    assert first.ensure_signing_key().read_bytes() == again.ensure_signing_key().read_bytes()


def test_a_long_log_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("easel_local.runner.state._MAX_LOG_BYTES", 4)
    state = State(tmp_path)
    with state.held():
        state.log("core").write_text("a long log")
        assert not state.log("core").exists()
        assert (state.logs / "core.log.1").read_text() == "a long log"


async def test_each_service_sees_its_own_schema_only(
    postgres_admin_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("easel_local.runner.database.DATABASE", f"stack_{os.getpid()}")
    passwords = {"alpha": "one", "beta": "two"}
    for _ in range(2):
        await prepare_database(postgres_admin_url, passwords)
    alpha = await asyncpg.connect(service_url(postgres_admin_url, "alpha", "one"))
    beta = await asyncpg.connect(service_url(postgres_admin_url, "beta", "two"))
    try:
        await alpha.execute("CREATE TABLE mine (); SELECT * FROM alpha.mine")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await beta.execute("SELECT * FROM alpha.mine")
        for place in ("alpha.theirs", "public.theirs"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await beta.execute(f"CREATE TABLE {place} ()")
    finally:
        await alpha.close()
        await beta.close()


async def test_an_unreachable_server_is_reported() -> None:
    nowhere = f"postgresql://x:y@127.0.0.1:{free_port()}/postgres"
    with pytest.raises(StartFailed, match="cannot prepare"):
        await prepare_database(nowhere, {"alpha": "one"})
