"""The commands a person types: up, down, demo, token, status, logs, audit-verify, clean."""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from easel_kit.errors import DomainError
from easel_kit.settings import SettingsError
from easel_local.cli import inspection, up
from easel_local.runner.settings import LocalSettings, load_local_settings

_FAILED, _WRONG_USE = 1, 2
_SIZE = re.compile(r"(\d{1,5})[xX](\d{1,5})")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    0 after success, 1 when something does not run, 2 when what was asked is wrong.
    """
    arguments = _parser().parse_args(argv)
    try:
        settings = load_local_settings(
            state=arguments.state,
            gateway_port=getattr(arguments, "port", None),
            scheduler_count=getattr(arguments, "schedulers", None),
            worker_count=getattr(arguments, "workers", None),
        )
        return int(arguments.command(settings, arguments))
    except SettingsError as error:
        print(f"wrong settings\n{error}", file=sys.stderr)
        return _WRONG_USE
    except DomainError as error:
        print(error, file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt:
        return _FAILED


def _size(text: str) -> tuple[int, int]:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 64x64")
    return int(match[1]), int(match[2])


def _demo(settings: LocalSettings, arguments: argparse.Namespace) -> int:
    # rich and httpx take a moment to load; the other commands do without
    from easel_local.cli import demo  # noqa: PLC0415

    return asyncio.run(demo.run(settings, demo.Wish.from_arguments(arguments)))


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--state", type=Path, metavar="DIR", help="folder of data, logs and secrets [.easel]"
    )
    parser = argparse.ArgumentParser(
        prog="python -m easel_local", description="Easel on one machine, without containers."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text, parents=[common])

    _add_running(command("up", "Run a stack until Ctrl-C."))
    command("down", "Stop the stack.").set_defaults(command=inspection.down)
    _add_demo(command("demo", "Make one picture with a stack of its own and stop it."))
    _add_token(command("token", "Print an access token for the running stack."))
    command("status", "Show what runs and how it feels.").set_defaults(command=inspection.status)
    _add_logs(command("logs", "Show the last lines of the logs."))
    audit = command("audit-verify", "Check billing's audit log against its anchors.")
    audit.set_defaults(command=inspection.audit_verify)
    check = command("ledger-check", "Check that billing's ledger adds up.")
    check.set_defaults(command=inspection.ledger_check)
    clean = command("clean", "Stop the stack and remove its folder.")
    clean.set_defaults(command=inspection.clean)
    return parser


def _add_running(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, help="of the gateway; 0: any free one [8080]")
    parser.add_argument("--schedulers", type=int, metavar="N", help="how many schedulers [1]")
    parser.add_argument("--workers", type=int, metavar="N", help="how many workers to run [1]")
    parser.set_defaults(command=up.up)


def _add_token(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--user", required=True, help="name of the user")
    parser.add_argument("--plan", help="free, pro or enterprise; the account's own when left out")
    parser.add_argument("--group", action="append", default=[], help="may be repeated")
    parser.add_argument("--ttl", type=int, default=3600, metavar="S", help="seconds [3600]")
    parser.set_defaults(command=inspection.token)


def _add_logs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("service", nargs="?", help="one service; all when left out")
    parser.add_argument("-n", "--lines", type=int, default=20, help="lines of each [20]")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what is added")
    parser.set_defaults(command=inspection.logs)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompt", required=True, help="what the picture shall show")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the picture")
    parser.add_argument("--negative-prompt", help="what it shall not show")
    parser.add_argument("--size", type=_size, metavar="WxH", help="pixels; the model's own size")
    parser.add_argument("--model", default="shapes-64", help="its key [shapes-64]")
    parser.add_argument("--steps", type=int, help="denoising steps; the model's own")
    parser.add_argument("--guidance", type=float, help="how much the prompt counts")
    parser.add_argument("--seed", type=int, help="the same seed gives the same picture")
    parser.add_argument("--user", default="demo", help="who asks [demo]")
    parser.add_argument("--plan", default="pro", help="that user's plan [pro]")
    parser.set_defaults(command=_demo)
