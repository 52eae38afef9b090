"""`make load`: starts a server of its own, loads it with Locust for half a minute, ends with Locust's exit code."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from own_server import OwnServer, roomy_queue

LOCUSTFILE = Path(__file__).with_name("locustfile.py")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="Everything else goes to Locust: see README.md.")
    parser.add_argument("--model", default="e5-small", help="a pulled model or a folder")
    parser.add_argument("--precision", default="auto", help="f32, bf16, or what the CPU likes best")
    parser.add_argument("--users", default="8", help="three quarters ask queries, one quarter embeds documents")
    parser.add_argument("--run-time", default="30s", help="how long the load lasts")
    options, others = parser.parse_known_args()
    with OwnServer(options.model, precision=options.precision, openai_port="0", **roomy_queue()) as server:
        print(server.ready_line, flush=True)
        users = ["--users", options.users, "--spawn-rate", options.users, "--run-time", options.run_time]
        command = [sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE), "--headless", "--only-summary"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
        done = subprocess.run([*command, "--host", server.target, *users, *others], env=environment, check=False)
        return done.returncode


if __name__ == "__main__":
    sys.exit(main())
