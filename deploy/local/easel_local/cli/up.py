"""Runs a stack in the foreground and says where it is."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable

from easel_kit.lifecycle import stop_on_signals
from easel_kit.log import configure_logging
from easel_local.runner.assembly import assemble
from easel_local.runner.settings import LocalSettings
from easel_local.runner.stack import Stack
from easel_local.runner.state import State


@contextlib.asynccontextmanager
async def running_stack(
    settings: LocalSettings, notice: Callable[[str], None]
) -> AsyncIterator[tuple[Stack, asyncio.Event]]:
    """A stack that is ready inside the block, and the event that signals set.

    Raises:
        InvalidState: another stack runs in the same folder.
        StartFailed: something did not start.
    """
    configure_logging("easel_local", "error")
    state = State(settings.state)
    with state.held():
        stop = stop_on_signals()
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, stop.set)
        stack = assemble(settings, state, notice)
        async with stack.running(stop):
            yield stack, stop


def up(settings: LocalSettings, _arguments: argparse.Namespace) -> int:
    """Run until Ctrl-C, SIGTERM or `down`."""
    asyncio.run(_up(settings))
    return 0


async def _up(settings: LocalSettings) -> None:
    _say("starting ...")
    async with running_stack(settings, _say) as (stack, stop):
        _say(_welcome(stack, settings))
        await stop.wait()
        _say("stopping ...")
    _say("stopped")


def _say(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody listens any more; the stack goes on
        print(text, flush=True)


def _welcome(stack: Stack, settings: LocalSettings) -> str:
    where = "" if settings.state.name == ".easel" else f" STATE={settings.state}"
    return f"""
Easel runs.

  gateway   {stack.facts["gateway_url"]}
  API docs  {stack.facts["docs_url"]}
  payments  {stack.facts["stripe_url"] or "Stripe"}
  logs      {settings.state / "logs"}

  a token   make token{where} USER=alice PLAN=pro
  stop      Ctrl-C, or make down{where}
"""
