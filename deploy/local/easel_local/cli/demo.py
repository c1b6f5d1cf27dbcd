"""One picture through the whole of Easel, by a stack of its own, told to a person as it happens."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from easel_kit.errors import DependencyDown, DomainError
from easel_local.cli.client import Easel, Refused, is_settled
from easel_local.cli.up import running_stack
from easel_local.runner.settings import LocalSettings
from easel_local.runner.stack import Stack

_MILLI = 1000
_TOKEN_DEADLINE_S = 10.0
_DONE, _FAILED, _WRONG_USE = 0, 1, 2
_TIMELINE = (
    ("queued", "queued_at"),
    ("claimed", "claimed_at"),
    ("first step", "first_step_at"),
    ("done", "finished_at"),
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What the person asked for; None leaves the choice to the model."""

    prompt: str
    out: Path
    model: str
    user: str
    plan: str
    negative_prompt: str | None = None
    size: tuple[int, int] | None = None
    steps: int | None = None
    guidance: float | None = None
    seed: int | None = None

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Wish:
        """From the flags of the same names."""
        return cls(**{name: getattr(arguments, name) for name in cls.__slots__})

    def request(self) -> dict[str, Any]:
        """The body of the request."""
        width, height = self.size or (None, None)
        body = {
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "model": self.model,
            "width": width,
            "height": height,
            "steps": self.steps,
            "guidance": self.guidance,
            "seed": self.seed,
        }
        return {name: value for name, value in body.items() if value is not None}


async def run(settings: LocalSettings, wish: Wish) -> int:
    """Start a stack, make the picture, stop the stack; the exit status.

    0 with a picture, 1 when a service failed, 2 when the wish cannot be fulfilled.
    """
    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    folder = wish.out.resolve().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK) or wish.out.is_dir():
        errors.print(f"cannot write {wish.out}", markup=False)
        return _WRONG_USE
    own = settings.model_copy(update={"state": settings.state / "demo", "gateway_port": 0})
    waiting = console.status("starting Easel ...")
    waiting.start()
    try:
        async with running_stack(own, lambda text: console.print(text, markup=False)) as started:
            waiting.stop()
            stack, stop = started
            await _until_stopped(_make(stack, wish, console), stop)
    except Refused as error:
        errors.print(str(error), markup=False)
        return _WRONG_USE
    except DomainError as error:
        errors.print(f"{error}\nlogs: {own.state / 'logs'}", markup=False)
        return _FAILED
    finally:
        waiting.stop()
    return _DONE


async def _until_stopped(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> None:
    """Do work, unless the person interrupts or the stack breaks."""
    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    if tasks[0] not in done:
        await asyncio.wait(tasks)
        raise DependencyDown("interrupted")
    tasks[0].result()


async def _make(stack: Stack, wish: Wish, console: Console) -> None:
    """The whole way of one picture, from token to balance."""
    async with httpx.AsyncClient(base_url=str(stack.facts["gateway_url"]), trust_env=False) as http:
        token = await _token(http, f"{stack.facts['issuer_url']}/token", wish)
        http.headers["Authorization"] = f"Bearer {token}"
        easel = Easel(http)
        before = await easel.credits()
        job = await easel.submit(wish.request())
        await _follow(easel, str(job["id"]), console)
        finished = await easel.generation(str(job["id"]))
        if finished["state"] != "succeeded":
            reason = (finished.get("error") or {}).get("message") or "no reason given"
            raise DependencyDown(f"the job {finished['state']}: {reason}")
        image = finished["images"][0]
        picture = await easel.picture(image["url"])
        await asyncio.to_thread(wish.out.write_bytes, picture)
        lines = await easel.settled_lines(str(job["id"]))
        after = await easel.credits()
    _tell(console, wish, finished, before, after)
    _row(console, "credits", charges(lines, after["available_millicredits"]))


async def _token(http: httpx.AsyncClient, url: str, wish: Wish) -> str:
    body = {"user": wish.user, "plan": wish.plan}
    try:
        answer = await http.post(url, json=body, timeout=_TOKEN_DEADLINE_S)
    except httpx.HTTPError as error:
        raise DependencyDown("the token issuer does not answer") from error
    if answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
        problems = answer.json()["errors"]
        raise Refused("\n".join(f"{each['field']}: {each['reason']}" for each in problems))
    if answer.is_error:
        raise DependencyDown(f"the token issuer answers {answer.status_code}")
    return str(answer.json()["access_token"])


async def _follow(easel: Easel, job_id: str, console: Console) -> None:
    """Show where the job is: its place in the queue, then its steps."""
    columns = (
        TextColumn("{task.description:<12}", markup=False),
        BarColumn(bar_width=40),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("submitted", total=None)
        async for name, data in easel.events(job_id):
            match name:
                case "queued":
                    place = data.get("position")
                    progress.update(bar, description=f"queued: {place}" if place else "queued")
                case "started":
                    progress.update(bar, description="started")
                case "progress":
                    total, step = data["steps"], data["step"]
                    progress.update(bar, description="painting", total=total, completed=step)
                case "succeeded":
                    total = progress.tasks[bar].total
                    progress.update(bar, description="done", completed=total)
                case _:
                    progress.update(bar, description=name)


def _tell(
    console: Console,
    wish: Wish,
    job: dict[str, Any],
    before: dict[str, int],
    after: dict[str, int],
) -> None:
    image = job["images"][0]
    size = f"{image['width']} x {image['height']}"
    paid = job.get("charged_millicredits") or job["price_millicredits"]
    rows = (
        ("picture", f"{wish.out}  {size}, seed {job['seed']}"),
        ("timeline", timeline(job["timeline"])),
        ("price", f"{_credits(paid)} credits"),
        ("balance", f"{_credits(_owned(before))} -> {_credits(_owned(after))} credits"),
    )
    for title, text in rows:
        _row(console, title, text)


def _row(console: Console, title: str, text: str) -> None:
    console.print(f"{title:<10}{text}", markup=False, soft_wrap=True)


def charges(lines: Sequence[Mapping[str, Any]], left: int) -> str:
    """What the ledger says of a job's price, and what can be spent after it (`left`).

    The lines of a job are changes of what can be spent: its hold takes the price, its end gives
    back what is not charged, so what is charged is what they come to.
    """
    held = sum(-line["millicredits"] for line in lines if line["kind"] == "hold")
    charged = -sum(line["millicredits"] for line in lines)
    told = f"{_credits(charged)} charged" if is_settled(lines) else "not charged yet"
    return f"{_credits(held)} held, {told}, {_credits(left)} left"


def timeline(moments: dict[str, str | None]) -> str:
    """Milliseconds since the job was queued, for each moment that is known."""
    known = [(title, moments[key]) for title, key in _TIMELINE if moments.get(key)]
    times = [(title, datetime.fromisoformat(str(moment))) for title, moment in known]
    if not times:
        return "unknown"
    began = times[0][1]
    parts = [
        f"{title} {(moment - began).total_seconds() * _MILLI:.0f} ms" for title, moment in times
    ]
    return " -> ".join(parts)


def _owned(account: dict[str, int]) -> int:
    """What is there, held or not: a hold is spent only when the job ends."""
    return account["available_millicredits"] + account["held_millicredits"]


def _credits(millicredits: int) -> str:
    return f"{millicredits / _MILLI:.3f}"
