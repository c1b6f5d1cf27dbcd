"""How a finished model is judged: by captions that training never saw, field by field."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from rich.console import Console

from tests.shapes import check
from training.__main__ import main
from training.evaluate import Evaluation, evaluate_model
from training.exam import Question, plain_questions
from training.progress import Display
from training.sheet import contact_sheet

if TYPE_CHECKING:
    from training.evaluate import Judge

MODEL = Path(__file__).parents[3] / "services" / "gpu-worker" / "models" / "shapes-64"
GREY = "two grey discs with a white background"


def judged(judge: Judge, captions: list[str], sheet: Path | None = None) -> Evaluation:
    questions = [Question("plain", caption) for caption in captions]
    with Display(Console(file=io.StringIO())).stage("judge") as bar:
        return evaluate_model(MODEL, judge, questions, bar, sheet=sheet)


def test_a_model_is_judged_on_held_out_captions(tmp_path: Path) -> None:
    sheet = tmp_path / "new" / "sheet.png"
    captions = [question.caption for question in plain_questions()[:8]]
    evaluation = judged(check, captions, sheet)
    assert evaluation.fields["background"].asked == 8
    assert evaluation.fields["background"].right == 8
    assert evaluation.fields["colour"].right >= 7
    assert evaluation.categories["plain"].asked == 8
    everything = evaluation.fields["everything"]
    assert evaluation.summary().startswith(
        f"8 captions that training never saw: {everything.right} of 8 all right"
    )
    with Image.open(sheet) as opened:
        assert opened.width == 10 * 148


def test_what_is_wrong_is_told_by_field_and_marked_on_the_sheet() -> None:
    evaluation = judged(lambda picture, _: check(picture, "two gray hearts on black"), [GREY])
    assert evaluation.fields["everything"].right == 0
    assert evaluation.fields["size"].asked == 0
    assert set(evaluation.answers[0].wrong) > {"background", "shape"}
    assert f"0 {GREY}: background, " in evaluation.summary()
    (wrong,) = evaluation.as_dict()["wrong"]
    assert (wrong["number"], wrong["caption"]) == (0, GREY)
    assert json.loads(json.dumps(evaluation.as_dict()))["fields"]["everything"]["asked"] == 1

    (answer,) = evaluation.answers
    red = (200, 0, 0)
    marked = contact_sheet([answer]).getcolors(1 << 20) or []
    clean = contact_sheet([replace(answer, wrong=())]).getcolors(1 << 20) or []
    assert red in {colour for _, colour in marked}
    assert red not in {colour for _, colour in clean}


def test_the_command_line_judges_for_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "sheet.png"
    arguments = ["--judge", str(MODEL), "--quick", "--json", "--sheet", str(sheet)]
    assert main(arguments) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["model"] == str(MODEL)
    assert line["captions"] == line["fields"]["everything"]["asked"] == 20
    assert sum(score["asked"] for score in line["categories"].values()) == 20
    assert line["sheet"] == str(sheet)
    assert sheet.exists()
