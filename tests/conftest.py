"""Servers and models that many tests share; built once into .run/, which git does not see."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from polarvec import Client
from polarvec_encoder.hardware import read_hardware
from server_process import ServerProcess

ROOT = Path(__file__).parent.parent
FAQ = Path(__file__).parent / "data" / "debian-faq-ko" / "faq.jsonl"


@pytest.fixture(scope="session")
def cache() -> Path:
    directory = ROOT / ".run" / "cache"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.fixture(scope="session")
def tiny_model(cache: Path) -> str:
    """A random model of two layers with the real tokenizer."""
    from polarvec_server.models.random_weights import build_random

    build_random("tiny", cache / "models")
    return "tiny"


@pytest.fixture(scope="session")
def e5_small(cache: Path) -> Path:
    """The folder of the embedded default model."""
    from polarvec_server.models.offline import build_e5_small

    return build_e5_small(cache / "models")


@pytest.fixture(scope="session")
def faq() -> list[dict[str, str]]:
    with FAQ.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def running(process: ServerProcess) -> Iterator[ServerProcess]:
    yield process.wait_ready()
    process.stop()


@pytest.fixture(scope="session")
def server(e5_small: Path, cache: Path) -> Iterator[ServerProcess]:
    """The default model in float32, two workers, for tests that leave it as they found it."""
    yield from running(ServerProcess("e5-small", cache, precision="f32", workers=2, playground=True))


@pytest.fixture(scope="session")
def bf16_server(e5_small: Path, cache: Path) -> Iterator[ServerProcess]:
    """The default model in bfloat16."""
    if not read_hardware().bf16:
        pytest.skip("this CPU has neither AMX nor AVX512_BF16, and the server refuses bf16 without them")
    yield from running(ServerProcess("e5-small", cache, precision="bf16", workers=1))


@pytest.fixture(scope="session")
def int8_server(e5_small: Path, cache: Path) -> Iterator[ServerProcess]:
    """The default model in int8."""
    if not read_hardware().int8:
        pytest.skip("this CPU has neither AVX512_VNNI, AVX_VNNI nor AMX_INT8, and the server refuses int8 without them")
    yield from running(ServerProcess("e5-small", cache, precision="int8", workers=1))


@pytest.fixture(scope="session")
def tiny_server(tiny_model: str, cache: Path) -> Iterator[ServerProcess]:
    """A random tiny model in float32, one worker."""
    yield from running(ServerProcess(tiny_model, cache, precision="f32", workers=1))


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.target) as client:
        yield client


@pytest.fixture
def tiny_client(tiny_server: ServerProcess) -> Iterator[Client]:
    with Client(tiny_server.target) as client:
        yield client
