"""Lints the SQL of every migration with squawk: what would lock a table or break a running release.

Exits 1 and shows what squawk found.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SQUAWK = Path(sys.executable).with_name("squawk")
# each with its reason; everything else that squawk knows is an error
EXCLUDED = {
    "prefer-robust-stmts": "each migration is one transaction: there is no half-applied state",
    "prefer-bigint-over-int": "sizes in pixels, steps and counts stay far below 2^31",
    "require-timeout-settings": "easel_kit.migrations sets lock_timeout for the whole session",
}


class Recorder:
    """Stands for `alembic.op` and keeps the SQL."""

    def __init__(self) -> None:
        """Starts empty."""
        self.statements: list[str] = []

    def execute(self, statement: str) -> None:
        """Keeps one statement, closed by a semicolon."""
        self.statements.append(statement.strip().rstrip(";") + ";\n")


def sql_of(file: Path) -> str:
    """What a migration's `upgrade` would execute."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{file}: cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    recorder = Recorder()
    module.__dict__["op"] = recorder
    module.upgrade()
    return "".join(recorder.statements)


def main() -> int:
    """Returns squawk's exit code over all services' migrations."""
    files = sorted(ROOT.glob("services/*/*/migrations/versions/*.py"))
    with tempfile.TemporaryDirectory() as folder:
        rendered = []
        for file in files:
            target = Path(folder) / f"{file.parents[2].name}.{file.stem}.sql"
            target.write_text(sql_of(file))
            rendered.append(str(target))
        excluded = [f"--exclude={rule}" for rule in EXCLUDED]
        command = [str(SQUAWK), "--assume-in-transaction", *excluded, *rendered]
        return subprocess.run(command, check=False, timeout=60).returncode  # noqa: S603 (our own files)


if __name__ == "__main__":
    sys.exit(main())
