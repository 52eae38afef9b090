"""The page of a report: one HTML file that needs nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2

from load_report.charts import charts

_TEMPLATES = Path(__file__).parent


def write_report(report: dict[str, Any], page: Path) -> Path:
    """Writes the page and, beside it, the JSON behind it."""
    page = page.with_suffix(".html")
    page.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, ensure_ascii=False, separators=(",", ":"))
    page.with_suffix(".json").write_text(text, encoding="utf-8")
    page.write_text(render(report), encoding="utf-8")
    return page


def render(report: dict[str, Any]) -> str:
    """The page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = _number
    return environment.get_template("page.html").render(report=report, charts=charts(report), stages=_stages(report))


def _number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _stages(report: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Phase, kind and stage, and percentiles: of judged phases, or of all where none is judged."""
    judged = [phase for phase in report["phases"] if phase["judged"]] or report["phases"]
    return [(phase["name"], stage, times) for phase in judged for stage, times in phase["stages"].items()]
