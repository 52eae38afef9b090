"""Part `models`: 1 to 3 models in one server, and what load on one does to another."""

from __future__ import annotations

import json
from pathlib import Path

from measured_server import Job, MeasuredServer, folder_of
from plan import Plan
from row import Row, make_row

_BULK: Job = {"callers": 2, "texts_a_call": 8, "tokens_a_text": 128, "distinct_calls": 32, "warm_calls": 2}
_QUERY: Job = {"callers": 1, "tokens_a_text": 20, "input_type": "query", "distinct_calls": 256}


def run(plan: Plan, server_cores: set[int], work: Path) -> list[Row]:
    """The same model under several names, so that every model more costs the same."""
    del server_cores
    names = [plan.model, *(_copy(plan.model, work / f"copy-{number}") for number in range(2, max(plan.models) + 1))]
    rows = []
    for count in plan.models:
        with MeasuredServer(",".join(names[:count]), "auto") as server:
            jobs: list[Job] = [{**_BULK, "model": name, "seconds": plan.seconds} for name in names[:count]]
            rows.append(make_row("one of them under load", count, server.load(**jobs[0])))
            together = server.load_all(jobs)
            rates = [each["tokens"] / each["wall_s"] for each in together]
            rows.append({**make_row("all under load", count, together[0]), "tokens_per_s": sum(rates)})
            rows += _isolation(server, names, plan) if count == 2 else []
    return rows


def _isolation(server: MeasuredServer, names: list[str], plan: Plan) -> list[Row]:
    """One query at a time to the first model: alone, beside bulk to itself, beside bulk to the other."""
    query: Job = {**_QUERY, "model": names[0], "seconds": plan.seconds}
    bulk: Job = {**_BULK, "seconds": plan.seconds}
    companies: dict[str, list[Job]] = {
        "query, nothing else": [],
        "query beside bulk to its model": [{**bulk, "model": names[0]}],
        "query beside bulk to the other": [{**bulk, "model": names[1]}],
    }
    return [make_row(series, 2, server.load_all([query, *others])[0]) for series, others in companies.items()]


def _copy(model: str, place: Path) -> str:
    """Makes a folder of the same files under another id; the weights are linked."""
    source = folder_of(model).path
    place.mkdir(parents=True, exist_ok=True)
    for file in source.rglob("*"):
        target = place / file.relative_to(source)
        if file.is_dir():
            target.mkdir(exist_ok=True)
        elif not target.exists():
            target.symlink_to(file)
    about = json.loads((source / "polarvec.json").read_text(encoding="utf-8"))
    (place / "polarvec.json").unlink()
    (place / "polarvec.json").write_text(json.dumps(about | {"id": place.name}), encoding="utf-8")
    return str(place)
