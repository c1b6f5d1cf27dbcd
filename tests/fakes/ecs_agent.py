"""The ECS agent's endpoint for task protection, on a port of this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from queue import Queue
from threading import Thread
from typing import Any

PROTECTED = {"protection": {"ProtectionEnabled": True, "TaskArn": "arn"}}


class Agent:
    """What was asked of it, in order, and what it answers."""

    def __init__(self) -> None:
        self.uri = ""
        self.status = 200
        self.answer = json.dumps(PROTECTED).encode()
        self.asked: Queue[tuple[str, str, Any]] = Queue()


@contextmanager
def ecs_agent() -> Iterator[Agent]:
    """One that answers until the block is left."""
    agent = Agent()

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            agent.asked.put((self.path, self.headers["Content-Type"], json.loads(body)))
            self.send_response(agent.status)
            self.end_headers()
            self.wfile.write(agent.answer)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    agent.uri = f"http://127.0.0.1:{server.server_port}/api/abc"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield agent
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
