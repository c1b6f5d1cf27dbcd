"""Commands of a process: with and without arguments of their own."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable

import pytest

from easel_kit.errors import NotFound
from easel_kit.lifecycle import Command, entry
from easel_kit.settings import ServiceSettings


async def serve(settings: ServiceSettings, stop: asyncio.Event) -> None:
    del settings, stop


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, list[str]]:
    """Calls the entry with these words; its exit code and what the commands were told."""
    told: list[str] = []

    def plain(settings: ServiceSettings) -> None:
        told.append(settings.log_level)

    def greet(settings: ServiceSettings, arguments: argparse.Namespace) -> None:
        del settings
        if arguments.name == "nobody":
            raise NotFound("person", "nobody")
        told.append(f"{arguments.name} x {arguments.times}")

    def declare(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--times", type=int, default=1)

    monkeypatch.setattr(sys, "argv", ["service", *words])
    commands: dict[str, Callable[[ServiceSettings], None] | Command[ServiceSettings]] = {
        "plain": plain,
        "greet": Command(greet, declare),
    }
    return entry("service", ServiceSettings, serve, commands), told


def test_a_command_without_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "plain") == (0, ["info"])


@pytest.mark.parametrize("words", [("greet", "ann", "--times", "2"), ("greet", "--times=2", "ann")])
def test_a_command_with_arguments(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    assert run(monkeypatch, *words) == (0, ["ann x 2"])


def test_what_a_command_refuses_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "greet", "nobody") == (1, [])
    assert capsys.readouterr().err == "service: there is no person nobody\n"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("plain", "more"), "unrecognized arguments: more"),
        (("greet",), "required: name"),
        (("greet", "ann", "--times", "often"), "argument --times"),
        (("greet", "ann", "bob"), "unrecognized arguments: bob"),
        (("dance",), "invalid choice: 'dance'"),
        (("--times=2",), "unrecognized arguments"),
    ],
)
def test_wrong_words_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    complaint: str,
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *words)
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err
