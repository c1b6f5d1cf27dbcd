"""Child processes that do not outlive their parent: starting, waiting for, stopping them.

What runs in them and when is the business of others.
"""

import asyncio
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from easel_kit.errors import DependencyDown
from easel_local.ports import is_free

_LAUNCHER = Path(__file__).with_name("launch.py")
_PORT_DEADLINE_S, _POLL_S = 2.0, 0.02
_LAST_LINES = 6
_GUARD = Path(__file__).with_name("guard.py")


class StartFailed(DependencyDown):
    """Something that this machine should run did not start; the text says why and where to look."""


def launcher(
    argv: Sequence[str], *, death_signal: int = signal.SIGKILL, identity: str = "same"
) -> list[str]:
    """The command line that runs argv so that it dies with this process.

    Args:
        argv: the program and its arguments.
        death_signal: what the kernel sends the program when this thread ends (Linux).
        identity: ``same``, ``map`` or ``UID:GID``; see `easel_local.launch`.
    """
    prefix = [sys.executable, "-I", "-S", str(_LAUNCHER)]
    return [*prefix, str(os.getpid()), str(int(death_signal)), identity, *argv]


class Guard:
    """A process that ends our children when we die; a pipe tells it that we did."""

    def __init__(self) -> None:
        """Start it."""
        self._popen = subprocess.Popen(  # noqa: S603 - our own script
            [sys.executable, "-I", "-S", str(_GUARD)],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def watch(self, pid: int, number: int) -> None:
        """Send that process a signal when we die."""
        self._tell(f"watch {pid} {int(number)}")

    def forget(self, pid: int) -> None:
        """That process has ended; its number may soon be another's."""
        self._tell(f"forget {pid}")

    def close(self) -> None:
        """End what is still watched and the guard itself."""
        assert self._popen.stdin is not None  # noqa: S101 - we asked for a pipe
        self._popen.stdin.close()
        self._popen.wait()

    def _tell(self, line: str) -> None:
        assert self._popen.stdin is not None  # noqa: S101 - we asked for a pipe
        with contextlib.suppress(BrokenPipeError):
            print(line, file=self._popen.stdin, flush=True)


@functools.cache
def _guard() -> Guard | None:
    return None if sys.platform == "linux" else Guard()


class Child:
    """A running program in its own session, so that a terminal's Ctrl-C reaches only its parent.

    On Linux the kernel signals the program when the thread that constructed it ends, however it
    ends; construct children in a thread that lives as long as they shall. Elsewhere a guard
    process does it when this process ends, unless the guard was killed first.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path | None = None,
        env: Mapping[str, str] | None = None,
        death_signal: int = signal.SIGKILL,
        identity: str = "same",
    ) -> None:
        """Start argv; its output is appended to log, or dropped when there is none."""
        command = launcher(argv, death_signal=death_signal, identity=identity)
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(log.open("ab")) if log else subprocess.DEVNULL
            self._popen = subprocess.Popen(  # noqa: S603 - argv comes from this package's tables
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )
        if (guard := _guard()) is not None:
            guard.watch(self._popen.pid, death_signal)
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[int]]] = []
        self._lock = threading.Lock()
        self._waiter: threading.Thread | None = None

    @property
    def pid(self) -> int:
        """The process id, valid also after the end."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._popen.poll()

    def send(self, number: int) -> None:
        """Send a signal to the program; nothing happens when it has ended."""
        self._popen.send_signal(number)

    def kill_group(self) -> None:
        """Kill the program and whatever it started in its session."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.kill()

    async def wait(self) -> int:
        """Wait for the end, without a deadline, and return the exit status."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[int] = loop.create_future()
        with self._lock:
            if (status := self._popen.poll()) is not None:
                return status
            self._waiting.append((loop, ended))
            if self._waiter is None:
                # A thread of its own: the loop's executor has too few for one wait per child.
                self._waiter = threading.Thread(target=self._reap, daemon=True)
                self._waiter.start()
        return await ended

    async def stop(self, number: int = signal.SIGTERM, *, grace_s: float) -> int:
        """Ask the program to end, kill it after grace_s seconds, return the exit status.

        Whatever else it left in its session is killed with it.
        """
        if (status := self.returncode) is not None:
            return status  # long ago perhaps: its number may be another's by now
        self.send(number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.wait(), grace_s)
        self.kill_group()
        return await self.wait()

    def _reap(self) -> None:
        status = self._popen.wait()
        if (guard := _guard()) is not None:
            guard.forget(self._popen.pid)
        with self._lock:
            waiting, self._waiting = self._waiting, []
            self._waiter = None
        for loop, ended in waiting:
            with contextlib.suppress(RuntimeError):  # the loop was closed in the meantime
                loop.call_soon_threadsafe(_resolve, ended, status)


def _resolve(ended: asyncio.Future[int], status: int) -> None:
    if not ended.done():
        ended.set_result(status)


async def expect_free(port: int) -> None:
    """Wait until nothing listens on the port; a predecessor may take a moment to vanish.

    Raises:
        StartFailed: something still does after two seconds.
    """
    deadline = time.monotonic() + _PORT_DEADLINE_S
    while not is_free(port):
        if time.monotonic() > deadline:
            raise StartFailed(f"port {port} is taken")
        await asyncio.sleep(_POLL_S)


def tail(log: Path | None, lines: int = 8) -> str:
    """The last lines of a log; empty when there is none."""
    if log is None or not log.exists():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def last_words(log: Path | None) -> str:
    """What a log's last lines say to a person: of a JSON line, the event and the error's end."""
    return "\n".join(f"  {_plain(line)}" for line in tail(log, _LAST_LINES).splitlines())


def _plain(line: str) -> str:
    try:
        fields = json.loads(line)
        error = str(fields.get("exception", "")).strip().rpartition("\n")[2]
        return f"{fields['event']}: {error}" if error else str(fields["event"])
    except (ValueError, KeyError, AttributeError):
        return line
