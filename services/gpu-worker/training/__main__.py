"""The command line: `python -m training --out DIR`, run from services/gpu-worker.

`--judge DIR` trains nothing and judges a finished model by captions that training never saw.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import diffusers.utils.logging
import torch
import transformers.utils.logging
from rich.console import Console

from training.evaluate import Sampling, evaluate_model
from training.exam import mixed_questions, plain_questions
from training.plan import CONTINUED, FULL, QUICK, Plan
from training.progress import Display
from training.stages import ForeignPartsError, Run

if TYPE_CHECKING:
    from training.evaluate import Judge

_REPOSITORY = Path(__file__).resolve().parents[3]
_JUDGE = "tests.shapes"
_CAPTIONS = {"mixed": mixed_questions, "plain": plain_questions}


def main(arguments: list[str]) -> int:
    """Trains what is missing, judges the model, prints the figures; returns the exit status."""
    options = _parse(arguments)
    _quiet_libraries()
    torch.set_num_threads(1)
    display = Display(Console(stderr=options.json))
    plan = _plan(options)
    model: Path = (options.out or options.judge).resolve()
    if options.out:
        work: Path = (options.work or model.with_name(f"{model.name}.work")).resolve()
        try:
            Run(plan, work, model, display, options.start).train()
        except ForeignPartsError as error:
            sys.stderr.write(f"{error}\n")
            return 2
        display.say(f"model: {model}")
    judge = _load_judge()
    if judge is None:
        display.say(f"not judged: {_JUDGE} is not here")
        return 0
    sheet: Path = options.sheet or _REPOSITORY / "out" / f"{model.name}.{options.captions}.png"
    questions = _CAPTIONS[options.captions]()[:: plan.judge_every]
    sampling = Sampling(options.steps, options.guidance)
    with display.stage("judge") as bar:
        evaluation = evaluate_model(model, judge, questions, bar, sheet=sheet, sampling=sampling)
    if options.json:
        line = {"model": str(model), **evaluation.as_dict(), "sheet": str(sheet)}
        sys.stdout.write(json.dumps(line) + "\n")
    else:
        display.say(f"{evaluation.summary()}\n\ncontact sheet: {sheet}")
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training", description="Train the built-in model shapes-64 from nothing."
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path, metavar="DIR", help="train a model into DIR")
    target.add_argument("--judge", type=Path, metavar="DIR", help="only judge the model in DIR")
    _add_training(parser.add_argument_group("training"))
    _add_judging(parser.add_argument_group("judging"))
    options = parser.parse_args(arguments)
    if options.budget_minutes is not None and options.budget_minutes <= 0:
        parser.error("--budget-minutes must be more than 0")
    if options.steps < 1:
        parser.error("--steps must be at least 1")
    return options


def _add_training(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        help="where unfinished parts are kept (default: beside the model, with .work added)",
    )
    group.add_argument(
        "--start",
        type=Path,
        metavar="DIR",
        help="begin with this model's weights, whatever words it knows, and not with nothing",
    )
    group.add_argument(
        "--budget-minutes", type=float, metavar="N", help="CPU minutes to train in all"
    )
    group.add_argument(
        "--quick", action="store_true", help="about a minute: proves the path, poor pictures"
    )


def _add_judging(group: argparse._ArgumentGroup) -> None:
    default = Sampling()
    group.add_argument(
        "--captions",
        choices=_CAPTIONS,
        default="mixed",
        help="200 captions of all categories, or 100 plain ones (default: mixed)",
    )
    group.add_argument(
        "--steps", type=int, default=default.steps, help="default: the preset's, %(default)s"
    )
    group.add_argument(
        "--guidance",
        type=float,
        default=default.guidance,
        help="default: the preset's, %(default)s",
    )
    group.add_argument(
        "--sheet",
        type=Path,
        metavar="FILE",
        help="the contact sheet, a PNG (default: in out/ of the repository)",
    )
    group.add_argument(
        "--json", action="store_true", help="one JSON line on stdout instead of the table"
    )


def _plan(options: argparse.Namespace) -> Plan:
    plan = QUICK if options.quick else CONTINUED if options.start else FULL
    return plan if options.budget_minutes is None else plan.within(options.budget_minutes)


def _quiet_libraries() -> None:
    """Leaves the console to our own progress bars."""
    for logging in (diffusers.utils.logging, transformers.utils.logging):
        logging.disable_progress_bar()
        logging.set_verbosity_error()


def _load_judge() -> Judge | None:
    """The checker of the test tree: it shares no code with the training, and may be absent."""
    if not (_REPOSITORY / "tests" / "shapes").is_dir():
        return None
    sys.path.insert(0, str(_REPOSITORY))
    judge: Judge = importlib.import_module(_JUDGE).check
    return judge


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
