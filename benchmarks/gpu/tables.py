"""What the measurement prints of each stage."""

from __future__ import annotations

from typing import Any


def lines_of(name: str, entry: dict[str, Any]) -> list[str]:
    """A stage's results as text: its checks, its numbers, and its tables."""
    lines = ["", f"== {name}: {entry['status']}, {entry['seconds']:.0f} s"]
    lines += [f"   {entry[word]}" for word in ("why", "error") if word in entry]
    if "error" in entry:
        lines += [f"   | {line}" for line in entry.get("traceback", "").splitlines()]
    for key, value in entry["results"].items():
        if isinstance(value, list):
            lines += [f"   {key}:", *_table(value)]
        elif isinstance(value, dict):
            mark = "ok   " if value["ok"] else "WRONG"
            lines.append(
                f"   {mark} {key}: {_text(value['value'])} (limit {_text(value['at_most'])})"
            )
        else:
            lines.append(f"   {key}: {_text(value)}")
    return lines


def _table(rows: list[dict[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [columns, *([_text(row.get(name, "")) for name in columns] for row in rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(columns))]
    padded = ([c.ljust(width) for c, width in zip(row, widths, strict=True)] for row in cells)
    return [f"     {'  '.join(row)}".rstrip() for row in padded]


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
