"""The parts of `make bench-gateway` without a server: calls, meters, stages of stacks, tables, failures."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from polarvec_proto.v1 import embedding_pb2 as pb

sys.path.append(str(Path(__file__).parents[2] / "load_tests" / "gateway"))

from closed_loop import call
from cpu_quota import CpuQuota, quotas_can_be_set
from measurement import Failure, medians
from meter import Meter, ThreadMeter
from part_tables import table, tables
from payloads import cut, make_payloads
from stages import (
    EDGE,
    NATIVE,
    OF_FILE,
    OTHER,
    PACKS,
    STAGES,
    TOKENIZER,
    TRANSPORT,
    TRITON,
    VECTORS,
    WAITING,
    classify,
    count_samples,
    spread,
)

GATEWAY = Path(__file__).parents[2] / "load_tests" / "gateway"
LOOP = ["Runner.run (asyncio/runners.py:118)", "Handle._run (asyncio/events.py:80)"]
EMBED = [
    *LOOP,
    "CallInterceptor._one.<locals>.call (polarvec_server/edge/interceptors.py:52)",
    "EmbeddingService._embed (polarvec_server/edge/service.py:36)",
    "Embedder.embed (polarvec_server/pipeline/embedder.py:88)",
]
INFER = "TritonEncoder.encode (polarvec_server/pipeline/triton.py:73)"


def test_texts_are_cut_into_whole_calls():
    assert cut(list("abcdefg"), 3) == [["a", "b", "c"], ["d", "e", "f"]]
    assert cut(list("ab"), 1) == [["a"], ["b"]]
    with pytest.raises(ValueError, match="2 texts are too few for a call of 3"):
        cut(list("ab"), 3)


@pytest.mark.parametrize(("count", "kind"), [(1, pb.INPUT_TYPE_QUERY), (2, pb.INPUT_TYPE_DOCUMENT)])
def test_payloads_are_requests_with_the_texts_in_order(count, kind):
    calls = [pb.EmbedRequest.FromString(payload) for payload in make_payloads(["하나", "둘", "셋", "넷"], count)]
    assert [text for call in calls for text in call.texts] == ["하나", "둘", "셋", "넷"]
    assert {(len(call.texts), call.input_type, call.truncation) for call in calls} == {(count, kind, pb.TRUNCATION_END)}


@pytest.mark.parametrize(
    ("frames", "stage"),
    [
        ([*EMBED, "Tokenizer.tokenize (polarvec_server/pipeline/tokenizer.py:71)"], TOKENIZER),
        (
            [*EMBED, "Tokenizer.tokenize (/x/polarvec_server/pipeline/tokenizer.py:71)", "0x7f (tokenizers.abi3.so)"],
            TOKENIZER,
        ),
        ([*EMBED, "make_packs (polarvec_server/pipeline/packing.py:9)"], PACKS),
        ([*EMBED, INFER], TRITON),
        # gRPC and protobuf work for the stage that called them.
        ([*EMBED, INFER, "UnaryUnaryMultiCallable.__call__ (grpc/aio/_channel.py:12)"], TRITON),
        ([*EMBED, INFER, "0x7f (google/_upb/_message.abi3.so)"], TRITON),
        ([*EMBED, "shape_vectors (polarvec_server/pipeline/postprocess.py:40)"], VECTORS),
        (EMBED[:4], VECTORS),
        (EMBED[:3], EDGE),
        ([*EMBED, "TokenizerThreads.run (polarvec_server/pipeline/threads.py:40)"], TRANSPORT),
        ([*LOOP, "0x7f (grpc/_cython/cygrpc.cpython-311-x86_64-linux-gnu.so)", "sendmsg (libc.so.6)"], TRANSPORT),
        ([*LOOP, "0x7f (cygrpc.so)", "0x7e (google/_upb/_message.abi3.so)"], VECTORS),
        ([*LOOP, "EpollSelector.select (selectors.py:468)", "epoll_wait (libc.so.6)"], WAITING),
        # A wait whose own frames have no symbols; and a lock on the way that is no wait.
        (
            [
                "_worker (concurrent/futures/thread.py:81)",
                "PyThread_acquire_lock_timed (libpython3.so)",
                "0x7f (libc.so.6)",
            ],
            WAITING,
        ),
        (["_worker (concurrent/futures/thread.py:81)", "pthread_mutex_lock (libc.so.6)"], TRANSPORT),
        # Uvicorn calls nothing of ours here.
        (["Server.main_loop (uvicorn/server.py:70)"], OTHER),
        ([], OTHER),
    ],
)
def test_a_stack_belongs_to_its_innermost_stage(frames, stage):
    assert classify(frames) == stage
    assert stage in (*STAGES, WAITING)


def test_every_file_that_a_stage_names_is_there():
    server = GATEWAY.parents[1] / "server" / "polarvec_server"
    assert [place for place in OF_FILE if not (server / place).exists()] == []


def test_samples_are_counted_by_thread_and_stage():
    raw = [
        f"thread (11): MainThread;{';'.join(EMBED)} 3",
        f"thread (11): MainThread;{';'.join([*EMBED, INFER])} 2",
        f"thread (11): MainThread;{';'.join([*EMBED[:4], INFER])} 5",
        "thread (12): tokenizer_0;pthread_cond_wait (libc.so.6) 7",
        "",
    ]
    assert count_samples(raw) == {11: {PACKS: 3, TRITON: 7}, 12: {WAITING: 7}}


def test_cpu_time_is_shared_out_within_each_thread():
    cpu_s = {1: 4.0, 2: 1.0, 3: 0.5, 4: 0.0}
    found = spread(cpu_s, {1: {TOKENIZER: 30, TRANSPORT: 10, WAITING: 500}, 2: {WAITING: 9}, 4: {OTHER: 1}})
    assert list(found) == list(STAGES)
    assert {stage: seconds for stage, seconds in found.items() if seconds} == {
        TOKENIZER: 3.0,
        # The rest of thread 1, and thread 2, which only ever waited.
        TRANSPORT: 2.0,
        # Thread 3 has no Python.
        NATIVE: 0.5,
    }


def test_medians_are_taken_of_each_number():
    assert medians([{"a": 1.0, "b": 9.0}, {"a": 5.0, "b": 1.0}, {"a": 2.0, "b": 2.0}]) == {"a": 2.0, "b": 2.0}


def _work(cpu_s: float) -> None:
    ends = time.thread_time() + cpu_s
    while time.thread_time() < ends:
        sum(range(1000))


def test_meters_count_cpu_time_and_whose_it_is():
    process = psutil.Process(os.getpid())
    meter, threads = Meter([process]), ThreadMeter(process)
    numbers, done, ended = [], threading.Event(), threading.Event()

    def worker() -> None:
        numbers.append(threading.get_native_id())
        _work(0.3)
        done.set()
        ended.wait(30)

    thread = threading.Thread(target=worker)
    thread.start()
    assert done.wait(60)
    by_thread, seconds = threads.seconds, meter.seconds
    ended.set()
    thread.join()
    # The kernel counts in steps of 10 ms.
    assert by_thread[numbers[0]] >= 0.28
    assert seconds >= 0.28
    assert meter.ms_a_call({"calls": 100}) >= 2.8


def test_tables_have_a_line_a_row_and_only_what_was_measured():
    rows = [
        {"workers": count, "calls_per_s": 1000.0 * count, "worker_cores": 0.5, "worker_ms": 2.0, "all_ms": 9.0}
        for count in (1, 2)
    ]
    text = tables({"workers": rows})
    assert text.splitlines()[2:] == [
        "| workers | calls/s | CPU of the workers, cores | CPU ms a call | of all processes |",
        "| --- | --- | --- | --- | --- |",
        "| 1 | 1,000.0 | 0.50 | 2.0 | 9.0 |",
        "| 2 | 2,000.0 | 0.50 | 2.0 | 9.0 |",
    ]
    assert text.count("## ") == 1


def test_the_table_of_stages_has_a_column_a_work_and_their_sums():
    rows = [
        {"work": work, "stage": stage, "ms": ms, "share": ms / 4, "samples": 9}
        for work in ("one", "many")
        for stage, ms in ((TOKENIZER, 3.0), (OTHER, 1.0))
    ]
    assert table("saturated", rows).splitlines()[2:] == [
        "| stage | one | many |",
        "| --- | --- | --- |",
        "| tokenizer | 3.000 (75%) | 3.000 (75%) |",
        "| other | 1.000 (25%) | 1.000 (25%) |",
        "| all | 4.000 | 4.000 |",
    ]


def test_callers_that_fail_say_why_and_leave_nothing(free_port):
    with pytest.raises(Failure, match="the callers failed: UNAVAILABLE"):
        call(f"127.0.0.1:{free_port}", [b""], 1, 0.1)
    assert not [child for child in psutil.Process().children() if "callers.py" in " ".join(child.cmdline())]


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_without_py_spy_the_part_profile_says_how_to_get_it(tmp_path):
    """A copy of the interpreter's folder without py-spy, and a PATH without it."""
    program = (
        "import sys, saturated\n"
        "sys.executable = sys.argv[1]\n"
        "try:\n    saturated.find_py_spy()\n"
        "except saturated.Failure as failure:\n    sys.exit(str(failure))\n"
    )
    paths = [str(GATEWAY), str(GATEWAY.parent), str(GATEWAY.parent / "clients")]
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "python")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install -c constraints.txt py-spy" in done.stderr


@pytest.mark.skipif(not quotas_can_be_set(), reason="cgroups of CPU need root and a cgroup file system to write to")
def test_a_process_is_held_to_its_quota_and_no_group_is_left():
    def groups():
        return {
            place for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/cpu") for place in Path(root).glob("bench-gateway-*")
        }

    before = groups()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        spinning = psutil.Process(process.pid)
        quota = CpuQuota([spinning], 0.2)
        assert len(groups() - before) == 2
        meter, started = Meter([spinning]), time.monotonic()
        time.sleep(1)
        used = meter.seconds / (time.monotonic() - started)
        process.kill()
        process.wait()
        with quota:
            pass
    # The kernel keeps it, whatever else runs; one period and the kernel's steps of 10 ms may come on top.
    assert 0 < used <= 0.25
    assert groups() == before
