"""The contract's checks can fail: a change that breaks callers and a stale stub are found."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[3]
BUF = Path(sys.executable).with_name("buf")


def breaking(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BUF, "breaking", folder, "--against", ROOT / "protos/released.binpb"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_removed_field_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "protos"
    shutil.copytree(ROOT / "protos", folder, ignore=shutil.ignore_patterns("gen"))
    assert breaking(folder).returncode == 0
    jobs = folder / "easel/scheduler/v1/jobs.proto"
    jobs.write_text(jobs.read_text().replace("  string job_id = 1;\n", "", 1))
    found = breaking(folder)
    assert found.returncode != 0
    assert "jobs.proto" in found.stdout


def test_a_bad_name_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "protos"
    shutil.copytree(ROOT / "protos", folder, ignore=shutil.ignore_patterns("gen"))
    jobs = folder / "easel/scheduler/v1/jobs.proto"
    jobs.write_text(jobs.read_text().replace("service JobService", "service Jobs"))
    found = subprocess.run(
        [BUF, "lint", folder], capture_output=True, text=True, check=False, timeout=60
    )
    assert found.returncode != 0
    assert "Service" in found.stdout


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "protos/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_stale_stub_is_named(tmp_path: Path) -> None:
    left, right = tmp_path / "left", tmp_path / "right"
    for side in (left, right):
        (side / "easel").mkdir(parents=True)
        (side / "easel/same.py").write_text("1")
        (side / "easel/other.py").write_text("1")
    compare = generator().differences
    assert compare(left, right) == []
    (left / "easel/other.py").write_text("2")
    (right / "easel/extra.py").write_text("")
    assert compare(left, right) == ["easel/extra.py", "easel/other.py"]
