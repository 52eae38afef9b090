"""The GPU's runner on stand-ins for torch's streams, events and graphs: every step is there, and in its order."""

import contextlib

import numpy as np
import pytest
import torch
from polarvec_encoder.batch import PackedBatch
from polarvec_encoder.cuda import cuda_runner, graphs
from polarvec_encoder.cuda.cuda_runner import CudaRunner
from polarvec_encoder.cuda.layout import lay_out
from polarvec_encoder.cuda.passes import TOKENS_PER_TEXT, Span
from polarvec_encoder.cuda.support import take_device

COLUMNS = 4


class Device:
    """Notes what is asked of it, under the stream that is current; a graph replays what ran while it was captured."""

    def __init__(self):
        self.log, self.stream, self.capturing, self.lost = [], "default", None, False

    def note(self, *words):
        self.log.append((self.stream, *words))


@pytest.fixture
def device(monkeypatch):
    device = Device()
    names = iter(("arriving", "computing", "leaving"))
    events = iter(f"{event} {slot}" for slot in range(2) for event in ("arrived", "computed", "done"))

    class Stream:
        def __init__(self, where=None):
            self.name = next(names) if where is not None else "default"

        def wait_event(self, event):
            device.log.append((self.name, "waits for", event.name))

        def synchronize(self):
            device.note("host waits for", self.name)
            if device.lost:
                raise RuntimeError("the device is lost")

    class Event:
        def __init__(self, blocking=False):
            self.name = next(events)

        def record(self, stream):
            device.log.append((stream.name, "records", self.name))

        def synchronize(self):
            device.note("host waits for", self.name)

    class Graph:
        def replay(self):
            device.note("replays", self.work[2])
            run_pass(*self.work)

    @contextlib.contextmanager
    def current(stream):
        before, device.stream = device.stream, stream.name
        try:
            yield
        finally:
            device.stream = before

    @contextlib.contextmanager
    def capture(graph, pool, stream, capture_error_mode):
        assert pool == "the pool" and capture_error_mode == "thread_local"
        device.capturing = graph
        with current(stream):
            yield
        device.capturing = None

    run_pass = graphs.run_pass

    def noted_pass(forward, slot, tokens):
        device.note("captures" if device.capturing else "computes", tokens)
        if device.capturing:
            device.capturing.work = (forward, slot, tokens)
        else:
            run_pass(forward, slot, tokens)

    for module in (graphs, cuda_runner):
        monkeypatch.setattr(module, "run_pass", noted_pass)
    replaced = {
        "Stream": Stream,
        "Event": Event,
        "CUDAGraph": Graph,
        "stream": current,
        "graph": capture,
        "graph_pool_handle": lambda: "the pool",
        "current_stream": lambda where: Stream(),
        "set_device": lambda where: device.note("current", str(where)),
        "empty_cache": lambda: None,
        "memory_reserved": lambda where: 100 + 10 * len(device.log),
    }
    for name, stand_in in replaced.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return device


def forward(inputs):
    """Every text's vector is its first token."""
    tokens = inputs.token_ids[inputs.picks.clamp(min=0)].float()
    return tokens[:, None].expand(-1, COLUMNS)


def make_inputs(tokens, ids):
    batch = PackedBatch(np.array(ids, np.int32), np.ones(len(ids), np.int32))
    return lay_out(batch, np.zeros(len(ids), np.int32), Span(0, len(ids), tokens), 1, 0, last=False)


def make(sizes=(128, 256), largest=384):
    return CudaRunner(forward, largest, COLUMNS, sizes, torch.device("cpu"), spin=True)


def test_every_size_is_captured_for_every_slot_the_largest_first(device):
    runner = make()
    ran = [entry for entry in device.log if entry[1] in ("computes", "captures")]
    assert ran == [("computing", verb, size) for size in (256, 256, 128, 128) for verb in ("computes", "captures")]
    assert runner.buffer_bytes > 0


def test_a_pass_goes_in_through_the_graph_and_out_in_order(device):
    runner = make()
    device.log.clear()
    runner.start(runner.slots[1], 128, make_inputs(128, [7, 8, 9]), 3)
    runner.wait(runner.slots[1])
    assert device.log == [
        ("default", "current", "cpu"),
        ("arriving", "records", "arrived 1"),
        ("computing", "waits for", "arrived 1"),
        ("computing", "replays", 128),
        ("computing", "records", "computed 1"),
        ("leaving", "waits for", "computed 1"),
        ("leaving", "records", "done 1"),
        ("default", "current", "cpu"),
        ("default", "host waits for", "done 1"),
    ]
    np.testing.assert_array_equal(runner.slots[1].read(3), np.repeat([[7], [8], [9]], COLUMNS, axis=1))


def test_a_pass_above_the_largest_size_runs_without_a_graph(device):
    runner = make()
    device.log.clear()
    runner.start(runner.slots[0], 384, make_inputs(384, [5]), 1)
    assert ("computing", "computes", 384) in device.log
    assert runner.slots[0].read(1)[0, 0] == 5


@pytest.mark.parametrize("lost", [False, True])
def test_a_pass_that_fails_half_queued_waits_for_its_first_half(device, monkeypatch, lost):
    runner = make()

    def full(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(cuda_runner, "run_pass", full)
    device.log.clear()
    device.lost = lost
    with pytest.raises(RuntimeError, match="out of memory"):
        runner.start(runner.slots[0], 384, make_inputs(384, [5]), 1)
    assert device.log[-3:] == [("default", "host waits for", name) for name in ("arriving", "computing", "leaving")]


@pytest.mark.parametrize(("asked", "taken"), [("cuda", "cuda:2"), ("cuda:1", "cuda:1"), ("cpu", "cpu")])
def test_a_gpu_without_a_number_is_the_current_one(monkeypatch, asked, taken):
    made_current = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: made_current.append(str(device)))
    assert str(take_device(asked)) == taken
    assert made_current == ([taken] if asked != "cpu" else [])


def test_slots_do_not_share_memory(device):
    runner = make()
    for place, slot in enumerate(runner.slots):
        runner.start(slot, 256, make_inputs(256, [10 + place] * (256 // TOKENS_PER_TEXT)), 32)
    assert [float(slot.read(32).mean()) for slot in runner.slots] == [10, 11]
