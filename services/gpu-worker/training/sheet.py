"""The contact sheet of a judged model: every picture over its caption, the wrong ones marked."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.evaluate import Answer

_COLUMNS = 10
_PICTURE_PX = 128
_GAP_PX = 10
_FRAME_PX = 4
_FONT_PX = 11
_LINE_PX = 13
_LINE_LETTERS = 22
_TEXT_LINES = 5
_PITCH_X_PX = _PICTURE_PX + 2 * _GAP_PX
_PITCH_Y_PX = _PICTURE_PX + 2 * _GAP_PX + _TEXT_LINES * _LINE_PX
_PAPER, _INK, _WRONG = (205, 205, 205), (0, 0, 0), (200, 0, 0)


def contact_sheet(answers: Sequence[Answer]) -> Image.Image:
    """Ten pictures a row, twice their size; a wrong one is framed red and says what is wrong."""
    rows = -(-len(answers) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * _PITCH_X_PX, rows * _PITCH_Y_PX), _PAPER)
    pencil = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT_PX)
    for number, answer in enumerate(answers):
        row, column = divmod(number, _COLUMNS)
        x_px, y_px = column * _PITCH_X_PX + _GAP_PX, row * _PITCH_Y_PX + _GAP_PX
        if answer.wrong:
            frame = (x_px - _FRAME_PX, y_px - _FRAME_PX)
            far = (x_px + _PICTURE_PX + _FRAME_PX - 1, y_px + _PICTURE_PX + _FRAME_PX - 1)
            pencil.rectangle((frame, far), fill=_WRONG)
        large = answer.picture.resize((_PICTURE_PX, _PICTURE_PX), Image.Resampling.NEAREST)
        sheet.paste(large, (x_px, y_px))
        _write(pencil, font, answer, number, (x_px, y_px + _PICTURE_PX + _FRAME_PX))
    return sheet


def _write(
    pencil: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    answer: Answer,
    number: int,
    corner: tuple[int, int],
) -> None:
    said = textwrap.wrap(f"{number} {answer.question.caption}", _LINE_LETTERS)
    lines = [(line, _INK) for line in said[: _TEXT_LINES - bool(answer.wrong)]]
    if answer.wrong:
        lines.append((f"wrong: {', '.join(answer.wrong)}"[: _LINE_LETTERS + 4], _WRONG))
    x_px, y_px = corner
    for index, (line, colour) in enumerate(lines):
        pencil.text((x_px, y_px + index * _LINE_PX), line, fill=colour, font=font)
