"""Each peer's own virtual environment, made once and again when its requirements change."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.queue.processes import Command, run_to_end

_PEERS = Path(__file__).with_name("peers")
_INSTALL_S = 300.0


def versions(peer: str) -> list[str]:
    """What its requirements pin."""
    lines = (_PEERS / peer / "requirements.txt").read_text().splitlines()
    return [line.partition(";")[0].strip() for line in lines if "==" in line]


async def python_of(peer: str, folder: Path) -> Path:
    """The interpreter that has the peer's library installed.

    Raises:
        Failed: it cannot be installed here.
    """
    requirements = _PEERS / peer / "requirements.txt"
    home = folder / peer
    python = home / "bin" / "python"
    done = home / "installed.txt"
    if done.exists() and done.read_text() == requirements.read_text():
        return python
    log = folder / f"{peer}.log"
    uv = Path(sys.executable).with_name("uv")
    pip = ["-m", "pip"]
    if uv.exists():
        make = [str(uv), "venv", "-q", "--clear", "--python", sys.executable, str(home)]
        install = [str(uv), "pip", "install", "-q", "--python", str(python)]
    else:
        make = [sys.executable, "-m", "venv", "--clear", str(home)]
        install = [str(python), *pip, "install", "-q"]
    for argv in (make, [*install, "-r", str(requirements)]):
        await run_to_end(Command(argv), log, within_s=_INSTALL_S)
    done.write_text(requirements.read_text())
    return python
