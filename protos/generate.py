"""Makes the committed stubs of `protos/easel` in `protos/gen`, or checks that they are current.

python protos/generate.py           writes protos/gen
python protos/generate.py --check   exits 1 and names the files that differ
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
GENERATED = ROOT / "gen"


def generate(target: Path) -> None:
    """Writes stubs, their types and the package files under `target`.

    Raises:
        SystemExit: the compiler refused a file; its own message is on stderr.
    """
    sources = sorted(str(path) for path in (ROOT / "easel").rglob("*.proto"))
    include = resources.files("grpc_tools") / "_proto"
    code = protoc.main(
        [
            "protoc",
            f"-I{ROOT}",
            f"-I{include}",
            f"--python_out={target}",
            f"--grpc_python_out={target}",
            f"--mypy_out=quiet:{target}",
            f"--mypy_grpc_out=only_async,quiet:{target}",
            *sources,
        ]
    )
    if code:
        raise SystemExit(code)
    package = target / "easel"
    for folder in [package, *(path for path in package.rglob("*") if path.is_dir())]:
        (folder / "__init__.py").touch()
    (package / "py.typed").touch()


def differences(left: Path, right: Path) -> list[str]:
    """Relative paths of files that are missing on one side or differ in a byte."""
    names = {
        path.relative_to(side)
        for side in (left, right)
        for path in side.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    return sorted(
        str(name)
        for name in names
        if not (left / name).is_file()
        or not (right / name).is_file()
        or not filecmp.cmp(left / name, right / name, shallow=False)
    )


def main() -> int:
    """Returns the exit code: 0 when `gen` is (or was made) current."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="write nothing, compare only")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh)
        if arguments.check:
            stale = differences(fresh, GENERATED)
            for name in stale:
                print(f"protos/gen/{name} is not what protos/easel gives: run `make proto`")
            return 1 if stale else 0
        shutil.rmtree(GENERATED, ignore_errors=True)
        shutil.copytree(fresh, GENERATED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
