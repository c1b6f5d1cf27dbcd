"""`python -m bench.billing`: holds on one hot account, and the same behind SELECT FOR UPDATE."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

from pydantic import SecretStr

from bench.billing.campaign import QUICK, Campaign, Plan
from bench.billing.report import as_json, as_text
from bench.queue.servers import Servers, facts, serving
from billing.main import migrate
from billing.settings import Settings
from easel_kit.db import open_pool

_OUT = Path(__file__).parents[2] / "out" / "bench" / "billing"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.billing",
        description="Many holds at once on one account whose credits suffice for a part of them: "
        "the rate of billing's one conditional statement beside the same behind SELECT FOR "
        "UPDATE, in rounds that interleave them. About two minutes on two quiet cores.",
    )
    plan = Plan()
    for name, value in (
        ("rounds", plan.rounds),
        ("holds", plan.holds),
        ("connections", plan.connections),
    ):
        parser.add_argument(
            f"--{name}", type=int, metavar="N", help=f"instead of {value} ({name} of each turn)"
        )
    parser.add_argument("--quick", action="store_true", help="two small rounds; figures are rough")
    parser.add_argument(
        "--json", action="store_true", help="one JSON line on stdout instead of the table"
    )
    return parser.parse_args()


def plan_of(arguments: argparse.Namespace) -> Plan:
    """The plan that the command line asks for."""
    plan = QUICK if arguments.quick else Plan()
    wanted = {name: getattr(arguments, name) for name in ("rounds", "holds", "connections")}
    return replace(plan, **{name: value for name, value in wanted.items() if value})


async def measure(servers: Servers, plan: Plan) -> Campaign:
    """Runs all rounds on a database of their own."""
    url = await servers.create_database("billing")
    await asyncio.to_thread(migrate, Settings(database_url=SecretStr(url)))
    began_s = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began_s:6.0f} s  {text}", file=sys.stderr, flush=True)

    async with open_pool(
        url, schema="billing", name="bench", max_size=plan.connections, command_timeout_s=120
    ) as pool:
        campaign = Campaign(pool, plan, say)
        await campaign.run()
    return campaign


async def _run(arguments: argparse.Namespace) -> str:
    plan = plan_of(arguments)
    async with serving(_OUT) as servers:
        machine = await facts(servers)
        campaign = await measure(servers, plan)
    write = as_json if arguments.json else as_text
    return write(machine, plan, campaign.results, campaign.breaches)


def main() -> int:
    """Runs and prints; 130 after Ctrl-C."""
    arguments = _arguments()
    shutil.rmtree(_OUT, ignore_errors=True)
    _OUT.mkdir(parents=True, exist_ok=True)
    try:
        print(asyncio.run(_run(arguments)))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
