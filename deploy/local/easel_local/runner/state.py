"""The folder in which a stack keeps its data, secrets, ports and logs, and who holds it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from easel_kit.errors import InvalidState
from easel_local.ports import free_port, is_free

_MAX_LOG_BYTES = 10 * 1024 * 1024
_LOCK_TRIES, _LOCK_PAUSE_S = 5, 0.02
_KEY_BYTES = 32  # as `easel_kit.objects` asks at least


class State:
    """Paths and small files of one stack."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; nothing is created yet."""
        self.folder = folder.resolve()
        self.logs = self.folder / "logs"
        self.objects = self.folder / "objects"
        self.postgres = self.folder / "postgres"
        self.redis = self.folder / "redis"
        self.issuer_key = self.folder / "issuer-key.pem"
        self.signing_key = self.folder / "signing-key"
        self.stripe = self.folder / "stripe.json"
        self._secrets = self.folder / "secrets.json"
        self._ports = self.folder / "ports.json"
        self._report = self.folder / "stack.json"
        self._lock = self.folder / "lock"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for one stack; the system lets go when the holder dies.

        Raises:
            InvalidState: another stack holds it.
        """
        for folder in (self.folder, self.logs, self.objects):
            folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o711)  # Postgres may run as another user and must find its own folder
        with self._lock.open("a") as lock:
            if not _lock(lock):
                raise InvalidState(
                    f"a stack already runs in {self.folder}: stop it with `make down`, or choose"
                    " another folder with STATE=..."
                )
            yield

    def is_held(self) -> bool:
        """Whether a stack runs in this folder now."""
        try:
            with self._lock.open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False

    def secret(self, name: str) -> str:
        """A secret that is made up once and kept."""
        known = _read(self._secrets)
        if name not in known:
            known[name] = secrets.token_urlsafe(24)
            _write(self._secrets, known, mode=0o600)
        return str(known[name])

    def ensure_signing_key(self) -> Path:
        """The file with the key that signs URLs of objects, made when missing."""
        if not self.signing_key.exists():
            fresh = self.signing_key.with_suffix(".new")
            fresh.touch(mode=0o600)
            fresh.write_bytes(secrets.token_bytes(_KEY_BYTES))
            fresh.rename(self.signing_key)
        return self.signing_key

    def ports(self, names: list[str]) -> dict[str, int]:
        """A free port for each name: the one of the last time where nobody else took it.

        The issuer's address stands in tokens, so they stay valid over a restart.
        """
        known = _read(self._ports)
        chosen = {
            name: known[name] if name in known and is_free(known[name]) else free_port()
            for name in names
        }
        _write(self._ports, known | chosen)
        return chosen

    def log(self, name: str) -> Path:
        """The log file of a service; a large one is put aside first."""
        file = self.logs / f"{name}.log"
        with contextlib.suppress(FileNotFoundError):
            if file.stat().st_size > _MAX_LOG_BYTES:
                file.rename(file.with_suffix(".log.1"))
        return file

    def write_report(self, report: Mapping[str, Any]) -> None:
        """Say what runs, for other commands and for tests; replaced as a whole."""
        _write(self._report, report)

    def read_report(self) -> dict[str, Any]:
        """What runs; empty when nothing was ever started."""
        return _read(self._report)


def _lock(file: IO[str]) -> bool:
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE_S)  # someone may just be looking whether it is held
        else:
            return True
    return False


def _read(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    return content


def _write(file: Path, content: Mapping[str, Any], *, mode: int = 0o644) -> None:
    fresh = file.with_suffix(".new")
    fresh.touch(mode=mode)
    fresh.write_text(json.dumps(content, indent=2) + "\n")
    fresh.rename(file)
