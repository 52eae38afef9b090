"""kill -9 of every process under load: no wrong vector, no error for callers with time, serving again by itself."""

import asyncio
import contextlib
import itertools
import math
import time

import psutil
import pytest
from polarvec import AsyncClient, Client, PolarvecError
from server_process import ServerProcess, wait_until

CALLERS = 8


@pytest.fixture(scope="module")
def victim(e5_small, cache):
    process = ServerProcess("e5-small", cache, precision="f32", workers=2).wait_ready()
    yield process
    process.stop()
    assert process.leftovers() == []


async def load(target, references, until, kill):
    """Callers embed known texts until told to stop; `kill` runs in the middle.

    Returns answers, wrong answers, errors, and the longest time between two answers after the kill.
    """
    texts = list(references)
    answers, wrong, errors, times = 0, [], [], []

    async def caller(number, client):
        nonlocal answers
        turn = number
        while not until.is_set():
            text = texts[turn % len(texts)]
            turn += CALLERS
            try:
                vector = await client.embed_documents(text, timeout_s=30)
            except PolarvecError as error:
                errors.append(error)
                await asyncio.sleep(0.05)
                continue
            answers += 1
            times.append(time.monotonic())
            if not vector @ references[text] >= 0.9999:
                wrong.append(text)

    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(AsyncClient(target)) for _ in range(CALLERS)]
        tasks = [asyncio.create_task(caller(number, client)) for number, client in enumerate(clients)]
        await asyncio.sleep(1.0)
        killed_at = time.monotonic()
        await asyncio.to_thread(kill)
        await asyncio.sleep(6.0)
        until.set()
        await asyncio.gather(*tasks)
    after = [killed_at, *(t for t in times if t > killed_at)]
    return answers, wrong, errors, max((b - a for a, b in itertools.pairwise(after)), default=math.inf), len(after) - 1


@pytest.fixture(scope="module")
def references(victim, faq):
    texts = [row["question_ko"] for row in faq[:40]] + [row["question_en"] for row in faq[:40]]
    with Client(victim.target) as client:
        return dict(zip(texts, client.embed_documents(texts), strict=True))


VICTIMS = {
    "stub": lambda server: server.stub(),
    "tritonserver": lambda server: server.triton(),
    "worker": lambda server: server.workers()[0],
}


@pytest.mark.parametrize("name", VICTIMS)
def test_kill_9_under_load(victim, references, name):
    process = VICTIMS[name](victim)
    answers, wrong, errors, gap_s, after = asyncio.run(load(victim.target, references, asyncio.Event(), process.kill))
    print(
        f"{name}: {answers} answers, {after} after the kill, longest gap {gap_s:.2f} s, "
        f"{len(errors)} errors, {len(wrong)} wrong"
    )
    assert not wrong
    assert after > 0
    assert not errors, {str(error) for error in errors}
    wait_until(lambda: victim.http("/readyz")[0] == 200, 30, "ready again")
    assert not process.is_running() and len(victim.workers()) == 2
    metric = "worker_restarts" if name == "worker" else "encoder_restarts"
    assert victim.metric(f"polarvec_{metric}_total") >= 1
    with Client(victim.target) as client:
        text, vector = next(iter(references.items()))
        assert client.embed_documents(text) @ vector > 0.9999


@pytest.mark.parametrize("name", ["stub", "tritonserver", "worker"])
def test_a_paused_process_is_replaced(victim, references, name):
    process = VICTIMS[name](victim)
    answers, wrong, errors, gap_s, after = asyncio.run(
        load(victim.target, references, asyncio.Event(), process.suspend)
    )
    print(f"{name} paused: {answers} answers, {after} after, longest gap {gap_s:.2f} s, {len(errors)} errors")
    assert not wrong and not errors, {str(error) for error in errors}
    assert after > 0
    wait_until(lambda: victim.http("/readyz")[0] == 200, 60, "ready again")
    wait_until(
        lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, 60, "the paused process is gone"
    )
    with Client(victim.target) as client:
        text, vector = next(iter(references.items()))
        assert client.embed_documents(text) @ vector > 0.9999


def test_health_says_no_while_the_encoder_is_away(tiny_model, cache):
    server = ServerProcess(tiny_model, cache, workers=1, encoder_patience_s=0, canary_interval_s=0.1).wait_ready()
    try:
        with Client(server.target) as client:
            server.triton().kill()
            took_s = wait_until(lambda: server.http("/readyz")[0] == 503, 2, "not ready")
            back_s = wait_until(lambda: server.http("/readyz")[0] == 200, 60, "ready again")
            print(f"not ready after {took_s:.2f} s, ready again after {back_s:.2f} s")
            assert client.embed_queries("돌아왔다").shape == (64,)
    finally:
        assert server.stop() == 0
