"""Prints what members of the workspace need from others: ``requirements.py FOLDER[EXTRA,…]…``.

An image installs these before any source is copied, in a layer that a change of our code keeps.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

_MEMBER = re.compile(r"(?P<folder>[^\[]+)(?:\[(?P<extras>[^\]]*)\])?")


def requirements(member: str) -> list[str]:
    """The requirements of one folder with a pyproject.toml and of its extras, ours left out."""
    parts = _MEMBER.fullmatch(member)
    if parts is None:
        raise SystemExit(f"requirements.py: not FOLDER[EXTRA,...]: {member}")
    project = tomllib.loads(Path(parts["folder"], "pyproject.toml").read_text("utf-8"))["project"]
    extras = [name for name in (parts["extras"] or "").split(",") if name]
    chosen = [project["dependencies"], *(project["optional-dependencies"][name] for name in extras)]
    return [line for lines in chosen for line in lines if not line.startswith("easel-")]


if __name__ == "__main__":
    print("\n".join(sorted({line for member in sys.argv[1:] for line in requirements(member)})))
