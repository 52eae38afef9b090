"""A workload read from JSON: kinds of calls, each with its share and the pool that its texts come from."""

from __future__ import annotations

import bisect
import itertools
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORKLOADS = Path(__file__).resolve().parents[1] / "workloads"
_KIND_FIELDS = {"share", "pool", "input_type", "text_count", "slo_ms", "priority", "zipf_exponent"}


class BadWorkload(Exception):
    """A workload file that says something else than a workload."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of call."""

    name: str
    share: float
    """Of all calls, in any unit: shares are divided by their sum."""
    pool: str
    input_type: str
    text_count: tuple[int, int]
    """Fewest and most texts in a call."""
    slo_ms: float
    """A right answer that takes longer is no good one."""
    priority: str | None = None
    zipf_exponent: float = 0.0
    """The k-th text of the pool comes 1/k^exponent times as often as the first; 0: all alike."""


@dataclass(frozen=True, slots=True)
class Call:
    """What one arrival sends."""

    kind: Kind
    rows: tuple[int, ...]
    """The texts, by their places in the kind's pool."""


class Workload:
    """Draws calls; the same for the same random generator, whatever the server does."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        """Reads the kinds.

        Raises:
            BadWorkload: A kind has an unknown field or a pool that is not there.
        """
        self.spec = spec
        self.kinds = {name: _kind(name, fields, spec["pools"]) for name, fields in spec["kinds"].items()}
        self._list = list(self.kinds.values())
        self._shares = list(itertools.accumulate(kind.share for kind in self._list))
        self._weights: dict[tuple[int, float], list[float]] = {}

    def call(self, generator: random.Random, pool_sizes: Mapping[str, int]) -> Call:
        """One call."""
        kind = self._list[_draw(self._shares, generator)]
        size = pool_sizes[kind.pool]
        count = min(size, generator.randint(*kind.text_count))
        if not kind.zipf_exponent:
            return Call(kind, tuple(generator.sample(range(size), count)))
        weights = self._zipf(size, kind.zipf_exponent)
        return Call(kind, tuple(_draw(weights, generator) for _ in range(count)))

    def _zipf(self, size: int, exponent: float) -> list[float]:
        key = (size, exponent)
        if key not in self._weights:
            self._weights[key] = list(itertools.accumulate(rank**-exponent for rank in range(1, size + 1)))
        return self._weights[key]


def read_workload(name: str) -> dict[str, Any]:
    """The spec of a shipped workload, or of a file."""
    path = Path(name) if name.endswith(".json") else WORKLOADS / f"{name}.json"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in WORKLOADS.glob("*.json")))
        raise BadWorkload(f"There is no workload {name}; there are {known}, or give a .json file.")
    spec = json.loads(path.read_text(encoding="utf-8"))
    Workload(spec)
    return {"name": path.stem, **spec}


def _draw(accumulated: list[float], generator: random.Random) -> int:
    return bisect.bisect_right(accumulated, generator.random() * accumulated[-1], hi=len(accumulated) - 1)


def _kind(name: str, fields: Mapping[str, Any], pools: Mapping[str, Any]) -> Kind:
    if unknown := set(fields) - _KIND_FIELDS:
        raise BadWorkload(f"The kind {name} has unknown fields: {', '.join(sorted(unknown))}.")
    if fields["pool"] not in pools:
        raise BadWorkload(f"The kind {name} names the pool {fields['pool']}, which is not there.")
    low, high = fields["text_count"]
    return Kind(name=name, **{**fields, "text_count": (low, high)})
