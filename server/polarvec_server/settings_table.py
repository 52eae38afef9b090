"""Writes the settings as the table of docs/operations.md; a test compares the two."""

from __future__ import annotations

from polarvec_server.config import PREFIX, Settings


def settings_table() -> str:
    """Returns a Markdown table: variable, default, meaning."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        meaning = " ".join((field.description or "").split())
        rows.append(f"| `{PREFIX}{name.upper()}` | `{field.default}` | {meaning} |")
    return "\n".join(rows)
