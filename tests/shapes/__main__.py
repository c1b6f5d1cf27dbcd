"""The command line: `python -m tests.shapes PICTURE "a red circle on a white background"`.

Exit status 0: the picture keeps all promises; 1: not all; 2: caption or picture not understood.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from PIL import UnidentifiedImageError

from tests.shapes.verdict import check

_WORDS = {True: "right", False: "wrong", None: "not asked"}


def main(arguments: list[str]) -> int:
    """Prints the verdict, one promise a line, and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.shapes")
    parser.add_argument("picture", type=Path, help="a picture's file")
    parser.add_argument("caption", help="what it should show")
    options = parser.parse_args(arguments)
    try:
        verdict = check(options.picture.read_bytes(), options.caption)
    except (ValueError, OSError, UnidentifiedImageError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    lines = [
        f"{field.name:<11}{_WORDS[getattr(verdict, field.name)]}"
        for field in dataclasses.fields(verdict)
    ]
    lines.append(f"all right  {'yes' if verdict.all_right else 'no'}")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if verdict.all_right else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
