"""Each import contract is seen to fail: a copy of the house gets one breach of each."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = {
    "gateway": "services/gateway",
    "billing": "services/billing",
    "scheduler": "services/scheduler",
    "gpu_worker": "services/gpu-worker",
    "easel_kit": "services/kit",
    "easel": "protos/gen",
}
BREACHES = {
    "1 services are independent": ("billing/main.py", "import scheduler.settings"),
    "2 services above easel_kit and stubs": ("easel_kit/clock.py", "import billing.settings"),
    "3 layers inside a service": ("scheduler/ports/queue.py", "import scheduler.rpc"),
    "4 edges and use cases see ports": ("billing/loop/jobs.py", "import billing.storage"),
    "5 the core is pure": ("gateway/domain/__init__.py", "import asyncpg"),
    "6 wire types stay at the edge": ("scheduler/loop.py", "import easel.scheduler.v1.jobs_pb2"),
    "7 torch only in the engine": ("gpu_worker/clients/__init__.py", "import torch"),
}


@pytest.mark.timeout(120)
def test_every_contract_is_kept_and_each_breach_is_found(tmp_path: Path) -> None:
    for package, home in PACKAGES.items():
        shutil.copytree(
            ROOT / home / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert set(verdicts(tmp_path).values()) == {"KEPT"}
    for place, line in BREACHES.values():
        file = tmp_path / place
        assert file.is_file(), place
        file.write_text(file.read_text() + f"\n{line}\n")
    assert verdicts(tmp_path) == dict.fromkeys(BREACHES, "BROKEN")


def verdicts(folder: Path) -> dict[str, str]:
    """Contract name to KEPT or BROKEN, as import-linter prints them."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"},  # noqa: TID251
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    found = re.findall(r"^(\d .+?) (KEPT|BROKEN)", done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    return {name.strip(): verdict for name, verdict in found}
