"""The examples of the README and of the API's page work as printed."""

import json
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.e2e.stack import Stack
from tests.shapes import check

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.timeout(120)]


def examples(page: str) -> list[str]:
    """The page's shell examples that are marked as run here."""
    return re.findall(
        r"<!-- run by tests/e2e/test_readme.py as printed -->\n```bash\n(.*?)```",
        (ROOT / page).read_text(),
        re.DOTALL,
    )


def run(example: str, stack: Stack, folder: Path) -> str:
    """What the example prints; the reader stands in the checkout, the files go elsewhere."""
    make = folder / "bin" / "make"
    make.parent.mkdir()
    make.write_text(f'#!/bin/sh\nexec {shutil.which("make")} -C "{ROOT}" "$@"\n')
    make.chmod(0o755)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", example],
        cwd=folder,
        env={
            **os.environ,  # noqa: TID251
            "PATH": f"{make.parent}:{os.environ['PATH']}",  # noqa: TID251
            "STATE": str(stack.folder),
            "GATEWAY": stack.url,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_curl_examples_draw_the_square(stack: Stack, tmp_path: Path) -> None:
    (example,) = examples("README.md")
    told = run(example, stack, tmp_path)
    assert "event: succeeded" in told
    assert '"capture"' in told or '"hold"' in told
    picture = (tmp_path / "square.png").read_bytes()
    assert check(picture, "a blue square on a yellow background").colour_right


def test_a_picture_is_drawn_from_an_upload(stack: Stack, tmp_path: Path) -> None:
    example, _ = examples("docs/api.md")
    square = BytesIO()
    Image.new("RGB", (64, 64), "blue").save(square, "PNG")
    (tmp_path / "square.png").write_bytes(square.getvalue())
    told = documents(run(example, stack, tmp_path))
    upload, job = told
    assert upload["kind"] == "uploaded"
    assert (job["state"], job["init_image"]["image"]) == ("succeeded", upload["id"])


def test_the_money_examples_tell_price_balance_and_where_to_pay(
    stack: Stack, tmp_path: Path
) -> None:
    _, example = examples("docs/api.md")
    estimate, plans, me, ledger, usage, page = documents(run(example, stack, tmp_path))
    assert estimate["total_credits"] == "0.820"
    assert [pack["key"] for pack in plans["packs"]] == ["small", "large"]
    assert me["credits"]["available_millicredits"] >= 0
    assert {"items", "next_cursor"} <= set(ledger)
    assert usage["totals"]["jobs"] >= 0
    assert page["url"].startswith("http")
    (statement,) = tmp_path.glob("easel-statement-*.csv")
    assert datetime.now(UTC).strftime("%Y-") in statement.name
    assert statement.read_text().count("\n") >= 1


def documents(text: str) -> list[dict[str, Any]]:
    """JSON documents that stand one after the other."""
    decoder, found, rest = json.JSONDecoder(), [], text.strip()
    while rest:
        document, end = decoder.raw_decode(rest)
        found.append(document)
        rest = rest[end:].strip()
    return found
