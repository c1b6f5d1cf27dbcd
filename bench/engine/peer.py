"""LitServe's packages, in a folder of their own that only servers under test have on their path.

Ours gets the folder too: uvicorn takes the faster event loop and parser wherever it finds them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.queue.processes import Command, run_to_end

_REQUIREMENTS = Path(__file__).with_name("requirements.txt")
_INSTALL_S = 300.0


def version() -> str:
    """Which LitServe the requirements pin."""
    (line,) = [
        line for line in _REQUIREMENTS.read_text().splitlines() if line.startswith("litserve==")
    ]
    return line.partition("==")[2]


async def install(folder: Path) -> Path:
    """The folder with the packages, made once and again when the requirements change.

    Raises:
        Failed: they cannot be had here.
    """
    site = folder / "site"
    done = site / "installed.txt"
    wanted = _REQUIREMENTS.read_text()
    if not done.exists() or done.read_text() != wanted:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--upgrade"]
        await run_to_end(
            Command([*pip, "--target", str(site), "-r", str(_REQUIREMENTS)]),
            folder / "install.log",
            within_s=_INSTALL_S,
        )
        done.write_text(wanted)
    return site
