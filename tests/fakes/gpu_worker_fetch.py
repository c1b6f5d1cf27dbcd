"""Fetching as the worker does it; run as a program, it is a process to kill in the middle.

python -m tests.fakes.gpu_worker_fetch ROOT LIMIT ENDPOINT SOURCE HOLD_S
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from gpu_worker.clients.bucket import S3Origin
from gpu_worker.clients.hub import HubOrigin
from gpu_worker.domain.source import Kind, Wanted, parse_source
from gpu_worker.storage.disk_cache import DiskCache
from gpu_worker.storage.model_store import ModelStore

LIMIT_BYTES = 10_000_000


def open_store(
    root: Path,
    *,
    limit_bytes: int = LIMIT_BYTES,
    hub: str = "http://127.0.0.1:9",
    token: str = "",
    s3: str = "http://127.0.0.1:9",
    stopped: Callable[[], bool] = lambda: False,
) -> ModelStore:
    """A store whose sources are all on loopback."""
    return ModelStore(
        DiskCache(root, limit_bytes, stopped),
        s3=S3Origin(region="us-east-1", endpoint=s3),
        hub=HubOrigin(endpoint=hub, token=token),
        stopped=stopped,
    )


def wanted(source: str, kind: Kind = "main", file: str = "", **more: object) -> Wanted:
    """Files of a source as an operator writes it."""
    sums = tuple(dict(more.get("sha256", {})).items())  # type: ignore[call-overload]
    variant = str(more.get("variant", ""))
    return Wanted(parse_source(source, Path("/")), kind, file, variant, sums)


def _main(root: str, limit: str, endpoint: str, source: str, hold_s: str) -> None:
    store = open_store(Path(root), limit_bytes=int(limit), hub=endpoint)
    with store.bring(wanted(source, "lora")) as path:
        data = next(path.glob("*.safetensors")).read_bytes()
        print(f"holds {len(data)} {sum(data)}", flush=True)  # noqa: T201 (to the test)
        time.sleep(float(hold_s))


if __name__ == "__main__":
    _main(*sys.argv[1:])
