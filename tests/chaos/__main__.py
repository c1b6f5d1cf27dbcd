"""`python -m tests.chaos --kills N --seed S`: kills processes of a real scheduler and judges it."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.checks import check
from tests.chaos.drive import Orders, drive
from tests.chaos.figures import describe
from tests.chaos.history import read

_SHOWN = 40


def main() -> int:
    """0: every promise was kept; 1: some was broken; 2: the run did not get to its end."""
    arguments = _arguments()
    if arguments.history is not None:
        return _judge(arguments.history)
    folder = Path(tempfile.mkdtemp(prefix="easel-chaos-"))
    seed = secrets.randbelow(1_000_000) if arguments.seed is None else arguments.seed
    _say(f"seed {seed}, {arguments.kills} kills, history in {folder}")
    orders = Orders(
        arguments.kills,
        seed,
        folder,
        workers=arguments.workers,
        pause_s=arguments.pause,
        durable=arguments.durable,
    )
    status = 2
    try:
        history = asyncio.run(drive(orders, _say))
        status = _judge(history)
    finally:
        if status == 0 and not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            _say(f"kept: {folder}")
    return status


def _judge(path: Path) -> int:
    history = read(path)
    violations = check(history)
    _say(describe(history))
    for violation in violations[:_SHOWN]:
        _say(f"BROKEN {violation.rule}: {violation.subject}: {violation.text}")
    rules = sorted({violation.rule for violation in violations})
    _say(f"{len(violations)} broken promises: {', '.join(rules)}" if rules else "0 broken promises")
    return 1 if violations else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Kills workers, schedulers, Redis and Postgres at random and checks that "
        "nothing accepted was lost or accepted twice, that no user had more leases than allowed, "
        "and more. Exit status: 0 all kept, 1 a promise was broken, 2 the run broke off.",
    )
    parser.add_argument("--kills", type=int, default=20, metavar="N", help="how many (20)")
    parser.add_argument(
        "--seed", type=int, metavar="S", help="of the plan of kills and all choices (random)"
    )
    parser.add_argument("--workers", type=int, default=6, metavar="N", help="worker processes (6)")
    parser.add_argument(
        "--pause", type=float, default=1.2, metavar="S", help="between two kills, on average (1.2)"
    )
    parser.add_argument(
        "--durable", action="store_true", help="Postgres waits for the disk, as in production"
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep the history and logs also of a good run"
    )
    parser.add_argument(
        "--history", type=Path, metavar="FILE", help="only judge the history of an earlier run"
    )
    return parser.parse_args()


def _say(words: str) -> None:
    print(words, flush=True)  # noqa: T201 (a command line)


if __name__ == "__main__":
    sys.exit(main())
