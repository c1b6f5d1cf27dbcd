"""The images' recipes keep the house's rules and agree with the other way to install."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RECIPES = {path.stem: path for path in (ROOT / "deploy/docker").glob("*.Dockerfile")}
IMAGES = ("billing", "gateway", "gpu-worker", "issuer", "scheduler")


def requirements(*members: str) -> list[str]:
    script = ROOT / "deploy/scripts/requirements.py"
    return subprocess.run(
        [sys.executable, script, *members],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout.splitlines()


def test_each_service_has_a_recipe() -> None:
    assert sorted(RECIPES) == sorted(IMAGES)


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_runs_as_nobody_special_and_says_how_it_is(name: str) -> None:
    recipe = RECIPES[name].read_text()
    final = recipe.rpartition("\nFROM ${BASE}\n")[2]
    assert recipe.count("\nFROM ${BASE}") == 2
    assert re.search(r"^USER 10001:10001$", final, re.MULTILINE)
    assert "groupadd --system --gid 10001" in final
    assert re.search(r"^HEALTHCHECK ", final, re.MULTILINE)
    assert "# syntax=" not in recipe
    assert ("torch" in recipe) == (name == "gpu-worker")


def test_both_ways_to_install_take_the_same_torch() -> None:
    version = re.compile(r"TORCH_VERSION=(\S+)")
    by_script = version.search((ROOT / "deploy/scripts/setup.sh").read_text())
    by_image = version.search(RECIPES["gpu-worker"].read_text())
    assert by_script is not None
    assert by_image is not None
    assert by_script[1] == by_image[1]


def test_only_what_others_made_is_required() -> None:
    plain = requirements("protos", "services/kit", "services/billing")
    assert "grpcio" in plain
    assert "alembic" not in plain
    assert not [line for line in plain if line.startswith("easel")]
    assert "alembic" in requirements("services/kit[migrations]")


def test_only_the_worker_needs_torch() -> None:
    for name in ("billing", "gateway", "scheduler"):
        assert not [line for line in requirements(f"services/{name}") if line.startswith("torch")]
    assert "torch>=2.13" in requirements("services/gpu-worker")
