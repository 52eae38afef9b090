import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from polarvec_server.errors import Overloaded
from polarvec_server.pipeline.threads import TokenizerThreads


@pytest.fixture
def threads():
    with ThreadPoolExecutor(1, thread_name_prefix="tokenizer") as executor:
        yield TokenizerThreads(executor)


@pytest.mark.parametrize(("characters", "name"), [(10, "MainThread"), (100_000, "tokenizer_0")])
async def test_only_large_work_leaves_the_event_loop(threads, characters, name):
    assert await threads.run(lambda: threading.current_thread().name, characters) == name


async def test_a_fifth_call_that_counts_is_refused_or_waits(threads):
    places = [threads.counting(wait_for_room=False) for _ in range(4)]
    for place in places:
        await place.__aenter__()
    with pytest.raises(Overloaded):
        await threads.counting(wait_for_room=False).__aenter__()
    waiting = asyncio.create_task(threads.counting(wait_for_room=True).__aenter__())
    await asyncio.sleep(0)
    assert not waiting.done()
    await places[0].__aexit__(None, None, None)
    await asyncio.wait_for(waiting, 5)
