"""A server of our own whose processes and counters are read before and after each load."""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypedDict, Unpack

import psutil
from polarvec_server.config import load_settings
from polarvec_server.models.folder import ModelFolder, read_folder
from polarvec_server.models.pull import obtain
from server_tree import Counters, PeakMemory, ServerTree
from word_texts import WordTexts

# What all load tests share lies one folder up.
sys.path.append(str(Path(__file__).parents[1]))
from own_server import OwnServer

_CLIENT = Path(__file__).with_name("load_client.py")
# A load that hangs must not hold the machine.
_LOAD_TIMEOUT_S = 150
_SEED = 5


class Job(TypedDict, total=False):
    """One load; what is not given is as in `_DEFAULTS`."""

    way: str
    """`list`, one method call with a list, or `stream`."""
    callers: int
    channels: int
    """Connections; the kernel gives each to one worker."""
    texts_a_call: int
    tokens_a_text: int
    distinct_calls: int
    """Calls that differ; at least two for each caller."""
    input_type: str
    seconds: float
    """No call begins later."""
    max_calls: int
    """0 means as many as fit."""
    warm_calls: int
    model: str


_DEFAULTS: Job = {
    "way": "list", "callers": 1, "channels": 1, "texts_a_call": 1, "tokens_a_text": 16, "distinct_calls": 64,
    "input_type": "document", "seconds": 2.0, "max_calls": 0, "warm_calls": 8, "model": "",
}  # fmt: skip


class MeasuredServer:
    """A server, its folders, and loads on it; a context manager."""

    def __init__(self, model: str, engine: str, *, cores: Collection[int] = (), **settings: str) -> None:
        """Starts it.

        Args:
            model: Names or folders, separated by commas; the first makes the texts.
            engine: `null`, `auto` and so on.
            cores: The cores that it gets; empty means all of ours.
            settings: Further ones, by their names in config.py.
        """
        ports = {"http_port": str(_free_port()), "triton_metrics_port": str(_free_port()), "openai_port": "0"}
        self.folder = folder_of(model.split(",")[0])
        self._stack = ExitStack()
        before = set(psutil.Process().children())
        own = self._stack.enter_context(OwnServer(model, cores=cores, engine=engine, **ports, **settings))
        (started,) = set(psutil.Process().children()) - before
        self._target = own.target
        self.tree = ServerTree(started.pid)
        self.counters = Counters(int(ports["http_port"]), int(ports["triton_metrics_port"]))
        self._client_cores = set(os.sched_getaffinity(0)) - set(cores) or os.sched_getaffinity(0)

    def __enter__(self) -> MeasuredServer:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def texts(self, count: int, tokens: int) -> list[str]:
        """Documents of the first model, as a load sends them."""
        return _maker(self.folder.tokenizer_file, _prompt(self.folder, "document")).make(count, tokens, _SEED)

    def load(self, **job: Unpack[Job]) -> dict[str, Any]:
        """Runs one load to its end and returns what client and server measured of it."""
        return self.load_all([job])[0]

    def load_all(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """Runs loads that begin together; each has the server's figures of all of them."""
        with ExitStack() as stack:
            clients = [stack.enter_context(self._client(job)) for job in jobs]
            return self._measure(clients, float(jobs[0].get("seconds", 0)))

    def _measure(self, clients: Sequence[subprocess.Popen[str]], seconds: float) -> list[dict[str, Any]]:
        counted, workers, cpu = self.counters.settled(), self.tree.worker_cpu_s(), self.tree.cpu_s()
        with PeakMemory(self.tree) as memory:
            for client in clients:
                _go(client)
            # Once, in the middle: each reading costs a worker some milliseconds.
            time.sleep(0.6 * seconds)
            midway = self.counters.read()
            answers = [_answer(client) for client in clients]
        spent = self.tree.cpu_s()
        spent.subtract(cpu)
        now = self.counters.settled()
        now.subtract(counted)
        of_server = {
            "cpu_s": dict(spent),
            "worker_cpu_s": [now - then for now, then in zip(self.tree.worker_cpu_s(), workers, strict=True)],
            "held_tokens": midway["polarvec_held_tokens"],
            "loop_lag_s": midway["polarvec_event_loop_lag_seconds"],
            "packs": now["polarvec_encoded_packs_total"],
            "batches": now["nv_inference_exec_count"],
            "refused": now["refused"],
            "rss_start_bytes": dict(memory.start),
            "rss_peak_bytes": dict(memory.peak),
        }
        return [answer | of_server for answer in answers]

    @contextmanager
    def _client(self, job: Job) -> Iterator[subprocess.Popen[str]]:
        whole: dict[str, Any] = {**_DEFAULTS, **job, "target": self._target}
        folder = folder_of(whole["model"]) if whole["model"] else self.folder
        maker = _maker(folder.tokenizer_file, _prompt(folder, whole["input_type"]))
        calls = max(whole["distinct_calls"], 2 * whole["callers"])
        whole["texts"] = maker.make(calls * whole["texts_a_call"], whole["tokens_a_text"], _SEED)
        whole["model"] = folder.id if whole["model"] else ""
        client = subprocess.Popen(
            [sys.executable, str(_CLIENT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, self._client_cores),
        )
        try:
            assert client.stdin and client.stdout
            client.stdin.write(json.dumps(whole) + "\n")
            client.stdin.flush()
            if client.stdout.readline() != "warm\n":
                sys.exit("the client failed before it was warm")
            yield client
        finally:
            if client.poll() is None:
                client.kill()
            client.communicate()


@functools.cache
def folder_of(model: str) -> ModelFolder:
    """The folder of a model that is named or lies somewhere; made first if it can be."""
    return read_folder(obtain(model, load_settings(model=model).models_dir, None, print))


# Reading the vocabulary takes a second.
_maker = functools.lru_cache(WordTexts)


def _prompt(folder: ModelFolder, input_type: str) -> str:
    names = ("query",) if input_type == "query" else ("passage", "document")
    return next((folder.prompts[name] for name in names if name in folder.prompts), "")


def _go(client: subprocess.Popen[str]) -> None:
    assert client.stdin
    client.stdin.write("go\n")
    client.stdin.flush()


def _answer(client: subprocess.Popen[str]) -> dict[str, Any]:
    answered, _ = client.communicate(timeout=_LOAD_TIMEOUT_S)
    if client.returncode:
        sys.exit("the client failed under load")
    return json.loads(answered)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
