"""A container's health check against real servers."""

import asyncio
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from easel_kit.probe import is_up, main
from easel_kit.rpc.server import build_server


class Pages(BaseHTTPRequestHandler):
    """`/readyz` is fine, all else is not."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base's name)
        del format, args


async def test_a_grpc_server_is_up_while_it_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    server = build_server()
    async with server.serving("127.0.0.1:0", [], grace_s=1):
        address = f"127.0.0.1:{server.port}"
        assert await asyncio.to_thread(main, [address]) == 0
        await server.set_health(serving=False)
        assert await asyncio.to_thread(main, [address]) == 1
    assert not await asyncio.to_thread(is_up, address)
    assert "Traceback" not in capfd.readouterr().err


def test_a_url_is_up_when_it_answers_200() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    base = f"http://127.0.0.1:{server.server_port}"
    try:
        assert is_up(f"{base}/readyz")
        assert not is_up(f"{base}/elsewhere")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert not is_up(f"{base}/readyz", deadline_s=0.5)


@pytest.mark.parametrize("arguments", [[], ["127.0.0.1:1", "127.0.0.1:2"]])
def test_it_wants_one_target(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "usage" in capsys.readouterr().err


async def test_the_command_says_it_by_its_exit_code() -> None:
    command = (sys.executable, "-m", "easel_kit.probe", "127.0.0.1:1")
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 1
