"""The examples of the README work as printed."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.stack import Stack
from tests.shapes import check

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.timeout(120)]


def test_the_curl_examples_draw_the_square(stack: Stack, tmp_path: Path) -> None:
    (example,) = re.findall(
        r"<!-- run by tests/e2e/test_readme.py as printed -->\n```bash\n(.*?)```",
        (ROOT / "README.md").read_text(),
        re.DOTALL,
    )
    make = tmp_path / "bin" / "make"  # the reader stands in the checkout, the files go elsewhere
    make.parent.mkdir()
    make.write_text(f'#!/bin/sh\nexec {shutil.which("make")} -C "{ROOT}" "$@"\n')
    make.chmod(0o755)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", example],
        cwd=tmp_path,
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
    assert "event: succeeded" in done.stdout
    assert '"capture"' in done.stdout or '"hold"' in done.stdout
    picture = (tmp_path / "square.png").read_bytes()
    assert check(picture, "a blue square on a yellow background").colour_right
