"""Writes docs/cells.md from the family files: every cell of the catalogue, its equations and who stores it how."""

from __future__ import annotations

from pathlib import Path

from normconvert.cells import family, names

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cells.md"


def page() -> str:
    parts = [
        "# Cells\n\nThe catalogue of known cells, made by `scripts/write_cells_page.py` from\n"
        "`normconvert/cells/*.toml`. `normconvert cells show NAME` prints a file in full. How to read the\n"
        "equations: [equations.md](equations.md).\n"
    ]
    for name in names():
        known = family(name)
        parts.append(f"## {name}\n\n{known.title}. Source: {known.source}.\n\n```\n{known.equations.strip()}\n```\n")
        for key, layout in known.layouts.items():
            stored = ", ".join(f"`{tensor}`" for tensor in layout.tensors)
            called = " or ".join([f"**{key}**", *layout.also])
            parts.append(f"- {called}{f' ({layout.source})' if layout.source else ''}: {stored}")
            parts += [
                f"  - open: `{question.setting}`, {' or '.join(map(str, question.options))}: {question.why}"
                for question in layout.open
            ]
        parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
