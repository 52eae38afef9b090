"""The options beside Locust's own; the web page shows them too."""

from __future__ import annotations

from typing import Any

from traffic.scenario import SHAPE_NAMES


def add_options(parser: Any) -> None:
    """Adds them to Locust's parser."""
    add = parser.add_argument  # An argument of a group would not be on the page.
    add("--workload", default="faq", help="A name in load_tests/workloads, or a .json file.")
    add("--shape", default="standard", choices=SHAPE_NAMES, help="How the offered load changes over the run.")
    add("--rate", type=float, default=20.0, help="Calls a second, over all processes; where ramp and search begin.")
    add("--peak-rate", type=float, default=80.0, help="Calls a second at the top of ramp and spike.")
    add("--max-rate", type=float, default=10_000.0, help="Calls a second that search does not go beyond.")
    add("--rates", default="10,20,40,60,80,100", help="Calls a second of each step of sweep and standard.")
    add("--seconds", type=float, default=15.0, help="How long; in standard, the steady part.")
    add("--step-seconds", type=float, default=4.0, help="How long each step of sweep, standard and search takes.")
    add("--arrivals", default="poisson", choices=("poisson", "constant"), help="Independent callers, or evenly spaced.")
    add("--seed", type=int, default=1, help="The same seed gives the same arrivals with the same texts.")
    add("--slo", default="", help="Milliseconds within which an answer is good: query=300,documents=2000.")
    add("--limits", default="failures=0", help="Over these the exit code is 1: query.p99=1000 failures=0 goodput=10.")
    add("--call-timeout-s", type=float, default=30.0, help="Deadline of a call.")
    add("--connections", type=int, default=8, help="Over all processes; each is served by one gateway worker.")
    add("--max-open", type=int, default=2000, help="Open calls over all processes; an arrival beyond is DROPPED.")
    own = {"include_in_web_ui": False}
    add("--references", default="", help="A .npz file of reference vectors to take, or to write.", **own)
    add("--report", default="build/load/report.html", help="Where the page goes; empty writes none.", **own)
    add("--metrics-url", default="", help="The gateway's /metrics.", **own)
    add("--triton-metrics-url", default="", help="Triton's /metrics.", **own)
    add("--server-pid", type=int, default=0, help="The server's first process, if it runs on this machine.", **own)
    add("--server-settings", default="", help="What run.py started the server with, as JSON.", **own)
