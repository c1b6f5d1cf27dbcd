"""The command line that every service has: flags before or after the command, and its arguments."""

import argparse
from pathlib import Path

import pytest

from easel_kit.lifecycle import Command, entry
from easel_kit.settings import ServiceSettings


class Settings(ServiceSettings):
    word: str = "default"


@pytest.fixture
def settings_file(tmp_path: Path) -> Path:
    file = tmp_path / "settings.toml"
    file.write_text('word = "from the file"\n')
    return file


async def serve(settings: Settings, stop: object) -> None:
    del stop
    print(f"served {settings.word}")  # noqa: T201 (what the test reads)


def plain(settings: Settings) -> None:
    print(f"plain {settings.word}")  # noqa: T201 (what the test reads)


def say(settings: Settings, arguments: argparse.Namespace) -> None:
    print(f"said {arguments.words} {arguments.loud} {settings.word}")  # noqa: T201 (as above)


def words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*")
    parser.add_argument("--loud", action="store_true")


def run(monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    monkeypatch.setattr("sys.argv", ["service", *argv])
    return entry("service", Settings, serve, {"plain": plain, "say": Command(say, words)})


@pytest.mark.parametrize(
    ("argv", "printed"),
    [
        ("", "served default"),
        ("serve", "served default"),
        ("--config FILE", "served from the file"),
        ("plain --config FILE", "plain from the file"),
        ("--config FILE plain", "plain from the file"),
        ("say", "said [] False default"),
        ("--config FILE say a b --loud", "said ['a', 'b'] True from the file"),
        ("--check-config", "service: settings are fine"),
        ("--check-config say a", "service: settings are fine"),
        ("say a --check-config", "service: settings are fine"),
    ],
)
def test_a_command_has_the_common_flags_and_its_own(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    settings_file: Path,
    argv: str,
    printed: str,
) -> None:
    assert run(monkeypatch, *argv.replace("FILE", str(settings_file)).split()) == 0
    assert capsys.readouterr().out.splitlines()[0] == printed


@pytest.mark.parametrize("argv", ["dance", "plain a", "say --state x"])
def test_what_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch, argv: str) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *argv.split())
    assert ended.value.code == 2
