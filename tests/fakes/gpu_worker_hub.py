"""A hub of one repository on loopback, which speaks as much of the hub's API as a fetch needs.

Large files are elsewhere, as a hub's are: it sends those who ask for them to another host.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """What it serves, how it misbehaves, and what it was asked for."""

    files: dict[str, bytes] = field(repr=False)
    repo: str = "org/model"
    token: str = ""
    gated: bool = False
    cut_after: int | None = None
    """Bytes of a file's body after which each connection breaks."""
    stall_after: int | None = None
    """Bytes of a file's body after which it says nothing more until `go_on`."""
    lies: dict[str, bytes] = field(default_factory=dict, repr=False)
    """Other contents than the listing promises."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """File and Range header of every download."""
    endpoint: str = ""
    stalled: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def listing(self) -> dict[str, object]:
        return {
            "id": self.repo,
            "sha": COMMIT,
            "siblings": [self._sibling(name, data) for name, data in self.files.items()],
        }

    def _sibling(self, name: str, data: bytes) -> dict[str, object]:
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # noqa: S324 (as git does)
        found: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": blob}
        if name.endswith(".safetensors"):
            digest = hashlib.sha256(data).hexdigest()
            found["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 130}
        return found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        told = self.headers.get("authorization")
        if path.startswith("/elsewhere/"):
            assert told is None, "the token is not for other hosts"
            self._send_file(path.removeprefix("/elsewhere/"), body=body)
        elif self.hub.token and told != f"Bearer {self.hub.token}":
            self._refuse(401, "RepoNotFound")
        elif self.hub.gated:
            self._refuse(403, "GatedRepo")
        elif path.startswith(f"/api/models/{self.hub.repo}/revision/"):
            if path.endswith((COMMIT, "/main")):
                self._send(200, json.dumps(self.hub.listing()).encode())
            else:
                self._refuse(404, "RevisionNotFound")
        elif path.startswith(f"/{self.hub.repo}/resolve/{COMMIT}/"):
            self._lead(path.partition(f"/{COMMIT}/")[2], body=body)
        else:
            self._refuse(404, "RepoNotFound")

    def _lead(self, name: str, *, body: bool) -> None:
        if not name.endswith(".safetensors"):
            self._send_file(name, body=body)
            return
        port = urlsplit(self.hub.endpoint).port
        self.send_response(302)
        self.send_header("location", f"http://localhost:{port}/elsewhere/{name}")
        self.send_header("content-length", "0")
        self.end_headers()

    def _send_file(self, name: str, *, body: bool) -> None:
        whole = self.hub.lies.get(name, self.hub.files[name])
        wanted = self.headers.get("range", "")
        start = int(wanted.removeprefix("bytes=").partition("-")[0] or 0) if wanted else 0
        data = whole[start:]
        if body:
            self.hub.asked.append((name, wanted))
        self.send_response(206 if wanted else 200)
        self.send_header("x-repo-commit", COMMIT)
        self.send_header("etag", f'"{hashlib.sha256(whole).hexdigest()}"')
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if not body:
            return
        for limit, stalls in ((self.hub.cut_after, False), (self.hub.stall_after, True)):
            if limit is not None and len(data) > limit:
                self.wfile.write(data[:limit])
                self.wfile.flush()
                if stalls:
                    self.hub.stalled.set()
                    self.hub.go_on.wait(20)
                self.close_connection = True
                return
        self.wfile.write(data)

    def _send(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("x-error-code", code)
        self.send_header("content-length", "0")
        self.end_headers()


@contextmanager
def running_hub(hub: FakeHub) -> Iterator[FakeHub]:
    """The hub, answering at `endpoint` inside the block."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        hub.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()
