"""Sampled stacks of a gateway worker, told apart by what they work on."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

TRANSPORT = "gRPC and event loop"
"""Frames of grpc and asyncio that no stage of ours called: HTTP/2, system calls, tasks, hops between threads."""
NATIVE = "gRPC's own threads"
"""Threads without Python, whose stacks are not sampled."""
OTHER = "other"
WAITING = "waiting"
"""No stage: py-spy takes many a thread for busy that sleeps in a system call."""

TOKENIZER = "tokenizer"
PACKS = "packing, queue, joining"
TRITON = "Triton call"
VECTORS = "normalise, read and write messages"
EDGE = "checks, accounting"

# In the order of a table. A folder stands for what is not named itself.
STAGES = (TRANSPORT, NATIVE, EDGE, TOKENIZER, PACKS, TRITON, VECTORS, OTHER)
OF_FILE = {
    "pipeline/tokenizer.py": TOKENIZER,
    "pipeline/prompts.py": TOKENIZER,
    # The hop to the thread of the tokenizer and back, not its work.
    "pipeline/threads.py": TRANSPORT,
    "pipeline/triton.py": TRITON,
    "pipeline/postprocess.py": VECTORS,
    "edge/service.py": VECTORS,
    "pipeline": PACKS,
    "edge": EDGE,
}
_FRAME = re.compile(r"^(?P<name>.*) \((?P<file>[^()]*?)(?::\d+)?\)$")
_WAITS = re.compile(
    r"(pthread_cond_(timed|clock)?wait|PyThread_acquire_lock(_timed)?|sem_(timed|clock)?wait|epoll_p?wait|p?poll|select"
    r"|syscall|futex\w*|clock_nanosleep) \("
)
_THREAD = re.compile(r"^thread \((\d+)\)")
# By parts of the file's name, for stacks without a file of ours.
_LIBRARIES = (
    ("_message.abi3", VECTORS),
    ("google/protobuf", VECTORS),
    ("grpc", TRANSPORT),
    ("cygrpc", TRANSPORT),
    ("asyncio", TRANSPORT),
    ("concurrent/futures", TRANSPORT),
    ("selectors.py", TRANSPORT),
)


def classify(frames: Iterable[str]) -> str:
    """Returns the stage of a stack, or `WAITING`.

    The innermost file of ours decides, for it is the one that called whatever runs; a stack without one is judged by
    the innermost library that is known.

    Args:
        frames: As py-spy writes them, `function (file:line)`, the outermost first.
    """
    inner = list(frames)[::-1]
    # Frames without a symbol are inside of the C library's own waiting.
    named = next((frame for frame in inner if not frame.startswith("0x")), "")
    if _WAITS.match(named):
        return WAITING
    files = [found["file"] for frame in inner if (found := _FRAME.match(frame))]
    for file in files:
        if "polarvec_server/" in file:
            place = file.partition("polarvec_server/")[2]
            stage = OF_FILE.get(place) or OF_FILE.get(place.partition("/")[0])
            if stage:
                return stage
    for file in files:
        for part, stage in _LIBRARIES:
            if part in file:
                return stage
    return OTHER


def count_samples(raw: Iterable[str]) -> dict[int, Counter[str]]:
    """Returns the samples of each thread by stage.

    Args:
        raw: Lines of `py-spy record --format raw --threads`: frames between semicolons, and how often the stack was
            seen. The first frame is the thread, with its number in the kernel.
    """
    counts: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for line in raw:
        stack, _, count = line.strip().rpartition(" ")
        thread, *frames = stack.split(";")
        number = _THREAD.match(thread)
        if number:
            counts[int(number[1])][classify(frames)] += int(count)
    return dict(counts)


def spread(thread_cpu_s: Mapping[int, float], samples: Mapping[int, Mapping[str, int]]) -> dict[str, float]:
    """Returns the CPU seconds of each stage: those of a thread, shared out as its samples are.

    Args:
        thread_cpu_s: What the kernel counted, by thread.
        samples: By thread and stage. A thread without samples counts as `NATIVE`, one that was only seen waiting as
            `TRANSPORT`: to wake up is all that it does.
    """
    seconds = dict.fromkeys(STAGES, 0.0)
    for thread, cpu_s in thread_cpu_s.items():
        busy = {stage: count for stage, count in samples.get(thread, {}).items() if stage != WAITING}
        seen = busy or {TRANSPORT if thread in samples else NATIVE: 1}
        total = sum(seen.values())
        for stage, count in seen.items():
            seconds[stage] += cpu_s * count / total
    return seconds
