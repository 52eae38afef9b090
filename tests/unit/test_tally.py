import random

from polarvec_server.telemetry import Tally
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

BUCKETS = (0.001, 0.01, 0.1, 1.0)


def metrics():
    registry = CollectorRegistry()
    counter = Counter("calls", "Calls", ["code"], registry=registry)
    histogram = Histogram("seconds", "Seconds", ["stage"], buckets=BUCKETS, registry=registry)
    return registry, counter.labels("OK"), histogram.labels("queue")


def values(registry):
    lines = generate_latest(registry).decode().splitlines()
    return {
        line.split()[0]: round(float(line.split()[1]), 9) for line in lines if "_created" not in line and line[0] != "#"
    }


def test_a_tally_gives_what_counting_each_gives():
    generator = random.Random(7)
    # The edges of the buckets too: they belong to the bucket below.
    seen = [*BUCKETS, 0.0, 5.0, *(10 ** generator.uniform(-4, 1) for _ in range(200))]
    (expected, counter, histogram), (registry, tallied_counter, tallied_histogram) = metrics(), metrics()
    tally = Tally()
    for turn, value in enumerate(seen):
        counter.inc(turn)
        histogram.observe(value)
        tally.count(tallied_counter, turn)
        tally.observe(tallied_histogram, value)
        if turn % 50 == 0:
            tally.flush()
    tally.flush()
    assert values(registry) == values(expected)


def test_nothing_is_handed_on_twice():
    registry, counter, _ = metrics()
    tally = Tally()
    tally.count(counter)
    tally.flush()
    tally.flush()
    assert values(registry)['calls_total{code="OK"}'] == 1
