"""Everything that decides what a run offers and what it must keep, read from Locust's options."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from traffic import shapes
from traffic.limits import Limit, parse_limits, parse_slos, problems_of, search_limits
from traffic.search import Search
from traffic.shapes import Shape, ShapeOptions
from traffic.workload import Workload, read_workload

SHAPES = {
    "standard": shapes.standard,
    "steady": shapes.steady,
    "ramp": shapes.ramp,
    "spike": shapes.spike,
    "soak": shapes.soak,
    "sweep": shapes.sweep,
}
SHAPE_NAMES = (*SHAPES, "search")


@dataclass(frozen=True, slots=True)
class Scenario:
    """A run, before it is made."""

    shape: str
    shape_options: ShapeOptions
    workload: Workload
    spec: dict[str, Any]
    arrivals: str
    seed: int
    slo_ms: dict[str, float]
    limits: list[Limit]
    limits_text: str
    call_timeout_s: float
    connections: int
    max_open: int
    references: Path | None
    search: Search | None

    @classmethod
    def from_options(cls, options: Namespace) -> Scenario:
        """Reads the command line.

        Raises:
            BadWorkload: The workload is none.
            ValueError: A rate, a limit or an SLO is malformed.
        """
        spec = read_workload(options.workload)
        workload = Workload(spec)
        slo_ms = parse_slos(options.slo, {name: kind.slo_ms for name, kind in workload.kinds.items()})
        limits = parse_limits(options.limits, workload.kinds)
        # What a rate of the search must keep: the SLOs, and whatever limits were asked for beside them.
        search = None
        if options.shape == "search":
            search = Search(partial(problems_of, limits=[*search_limits(slo_ms), *limits]))
        rates = _read_rates(options.rates)
        numbers = ShapeOptions(
            options.rate, options.peak_rate, rates, options.seconds, options.step_seconds, options.max_rate
        )
        if min(options.rate, options.peak_rate, options.seconds, options.step_seconds, *rates) <= 0:
            raise ValueError("Rates and seconds must be above 0.")
        if min(options.max_open, options.connections) < 1:
            raise ValueError("--max-open and --connections must be at least 1.")
        return cls(
            shape=options.shape,
            shape_options=numbers,
            workload=workload,
            spec=spec,
            arrivals=options.arrivals,
            seed=options.seed,
            slo_ms=slo_ms,
            limits=limits,
            limits_text=options.limits,
            call_timeout_s=options.call_timeout_s,
            connections=options.connections,
            max_open=options.max_open,
            references=Path(options.references) if options.references else None,
            search=search,
        )

    def phases(self) -> Shape:
        """The run's phases."""
        return self.search.phases(self.shape_options) if self.search else SHAPES[self.shape](self.shape_options)

    def plain(self, process_count: int) -> dict[str, Any]:
        """For the report."""
        numbers = self.shape_options
        return {
            "shape": self.shape,
            "rate": numbers.rate,
            "peak_rate": numbers.peak_rate,
            "rates": list(numbers.rates),
            "max_rate": numbers.max_rate,
            "seconds": numbers.seconds,
            "step_seconds": numbers.step_seconds,
            "workload": self.spec,
            "arrivals": self.arrivals,
            "seed": self.seed,
            "slo_ms": self.slo_ms,
            "limits": self.limits_text,
            "call_timeout_s": self.call_timeout_s,
            "connections": self.connections,
            "max_open": self.max_open,
            "processes": process_count,
        }


def _read_rates(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(rate) for rate in text.replace(",", " ").split())
    except ValueError:
        raise ValueError(f"--rates {text}: write numbers with commas between them, such as 10,20,40") from None
