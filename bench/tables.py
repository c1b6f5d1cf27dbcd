"""Tables as benchmarks print them: words to the left, figures to the right."""

from __future__ import annotations

from collections.abc import Sequence

NOTHING = "-"
"""Stands where nothing was measured."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they must be; a column of figures leans to the right."""
    lines = [header, *rows]
    widths = [max(len(line[n]) for line in lines) for n in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if n == 0 or not _is_figure(rows, n) else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _is_figure(rows: Sequence[Sequence[str]], column: int) -> bool:
    return all(row[column][:1].isdigit() or row[column] in {NOTHING, ""} for row in rows)
