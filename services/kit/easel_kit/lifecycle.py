"""From signal to last word: the stop event, supervised tasks, and the entry of each process."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic

from easel_kit.errors import DomainError
from easel_kit.log import configure_logging, get_logger
from easel_kit.settings import AnySettings, SettingsError, load_settings
from easel_kit.telemetry import configure_tracing

# Python 3.11's wait_for, which drivers use inside, may swallow a cancellation.
_CANCEL_AGAIN_S = 1.0

_log = get_logger(__name__)


class Supervisor(AbstractAsyncContextManager["Supervisor"]):
    """Background tasks that must not die unseen.

    A task that fails (or returns, unless it was started with `may_end`) sets `stop`; leaving the
    block cancels what still runs and raises the first failure.
    """

    def __init__(self, stop: asyncio.Event) -> None:
        """`stop` is the process's stop event."""
        self._stop = stop
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    def start(
        self, name: str, work: Coroutine[Any, Any, None], *, may_end: bool = False
    ) -> asyncio.Task[None]:
        """Runs `work` until the block is left."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(done, may_end=may_end))
        return task

    def _ended(self, task: asyncio.Task[None], *, may_end: bool) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            _log.error("task.failed", task=task.get_name(), exc_info=error)
            self._failure = self._failure or error
            self._stop.set()
        elif not may_end and not self._stop.is_set():
            _log.error("task.ended", task=task.get_name())
            self._failure = self._failure or RuntimeError(f"task {task.get_name()} ended")
            self._stop.set()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Cancels, waits, and raises the first failure of a task."""
        while tasks := set(self._tasks):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_CANCEL_AGAIN_S)
        if error is None and self._failure is not None:
            raise self._failure


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set; a second signal ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def handle(number: int) -> None:
        if stop.is_set():
            sys.exit(128 + number)
        _log.info("process.stopping", signal=signal.Signals(number).name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, handle, number)
    return stop


Run = Callable[[AnySettings, asyncio.Event], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Command(Generic[AnySettings]):
    """A blocking one-off command that takes arguments of its own.

    Attributes:
        run: does it.
        declare: adds its arguments to its parser.
    """

    run: Callable[[AnySettings, argparse.Namespace], None]
    declare: Callable[[argparse.ArgumentParser], None]


def entry(
    name: str,
    settings: type[AnySettings],
    run: Run[AnySettings],
    commands: Mapping[str, Callable[[AnySettings], None] | Command[AnySettings]] | None = None,
) -> int:
    """The body of each service's `__main__`: flags, settings, logs, traces, then `run`.

    Exit codes: 0 after a clean stop, 1 after a failure, 2 for wrong flags or settings.

    Args:
        name: of the service; also of its program in help texts.
        settings: the service's class.
        run: serves until the stop event is set.
        commands: blocking one-off commands by name, e.g. `migrate`. What one of them refuses with
            an error of ours is a line on stderr.
    """
    known = dict(commands or {})
    arguments = _parser(name, known).parse_args()
    try:
        loaded = load_settings(settings, arguments.config)
    except SettingsError as error:
        print(f"{name}: wrong settings\n{error}", file=sys.stderr)  # noqa: T201
        return 2
    if arguments.check_config:
        print(f"{name}: settings are fine")  # noqa: T201
        return 0
    configure_logging(name, loaded.log_level)
    if arguments.command is not None and arguments.command != "serve":
        return _act(name, known[arguments.command], loaded, arguments)
    close_tracing = configure_tracing(name, loaded.otlp_endpoint)

    async def serve() -> None:
        await run(loaded, stop_on_signals())

    try:
        asyncio.run(serve())
    except Exception:  # noqa: BLE001 (the last supervisor: logs, then ends the process)
        _log.exception("process.failed")
        return 1
    finally:
        close_tracing()
    _log.info("process.stopped")
    return 0


def _act(
    name: str,
    command: Callable[[AnySettings], None] | Command[AnySettings],
    settings: AnySettings,
    arguments: argparse.Namespace,
) -> int:
    try:
        if isinstance(command, Command):
            command.run(settings, arguments)
        else:
            command(settings)
    except DomainError as error:
        print(f"{name}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _parser(
    name: str, commands: Mapping[str, Callable[[AnySettings], None] | Command[AnySettings]]
) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {name}")
    _common_flags(parser)
    # a flag that stands before the command is not taken back by the command's own default
    parser.set_defaults(config=None, check_config=False)
    choices = parser.add_subparsers(dest="command", title="what to do", metavar="command")
    for key in ("serve", *commands):
        chosen = choices.add_parser(key, help="the default" if key == "serve" else None)
        _common_flags(chosen)
        command = commands.get(key)
        if isinstance(command, Command):
            command.declare(chosen)
    return parser


def _common_flags(parser: argparse.ArgumentParser) -> None:
    missing = argparse.SUPPRESS
    parser.add_argument(
        "--config", type=Path, metavar="FILE", default=missing, help="settings file (TOML)"
    )
    parser.add_argument(
        "--check-config", action="store_true", default=missing, help="check the settings and end"
    )
