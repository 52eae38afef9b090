"""Two batches under way in a real Triton stub: the GPU engine's forward pass, here on the CPU, answers every pack."""

import asyncio
import subprocess
import time

import numpy as np
import pytest
from polarvec_encoder.architecture import read_architecture
from polarvec_encoder.batch import PackedBatch
from polarvec_encoder.choice import Choice
from polarvec_encoder.engine import encode_all
from polarvec_encoder.loading import build_engine
from polarvec_server.config import load_settings
from polarvec_server.errors import PolarvecServerError
from polarvec_server.models.folder import read_folder
from polarvec_server.pipeline.triton import TritonEncoder
from polarvec_server.pipeline.values import Pack
from polarvec_server.prepare import prepare_models
from polarvec_server.run_directory import shared_memory_prefix
from polarvec_server.tritonserver import TritonPlan, find_triton, free_port

# What the encoder's copy in the repository loads instead of what config.pbtxt says: no name leads to it here.
ENGINE_ON_CPU = """

def build_engine(folder, architecture, pooling, choice, threads, **_):
    from polarvec_encoder.cuda.engine import CudaEngine

    return CudaEngine(folder, architecture, pooling, "f32", "erf", "cpu")
"""
PACKS = 400
READY_S = 60


@pytest.fixture
def target(tiny_model, cache, tmp_path):
    settings = load_settings(model=tiny_model, cache_dir=cache, engine="openvino", precision="f32")
    prepare_models(settings, tmp_path / "repository", lambda _: None, 1)
    with (tmp_path / "repository/encoder_0/1/polarvec_encoder/loading.py").open("a") as file:
        file.write(ENGINE_ON_CPU)
    prefix = shared_memory_prefix() + "overlap-"
    plan = TritonPlan(find_triton("", tmp_path), tmp_path / "repository", tmp_path, free_port(), 60, prefix)
    with (tmp_path / "log").open("w") as log:
        triton = subprocess.Popen(plan.command(), env=plan.environment(), stdout=log, stderr=log)
        yield plan.target
        triton.terminate()
        # A stub that cannot drain its batches would have to be killed.
        assert triton.wait(30) == 0
    assert "golden cosine 1.0000" in (tmp_path / "log").read_text()
    plan.clean_up()


@pytest.fixture
def packs():
    rng = np.random.default_rng(5)
    lengths = [rng.integers(3, 400 if i % 4 == 0 else 40, rng.integers(1, 9)).astype(np.int32) for i in range(PACKS)]
    return [Pack(rng.integers(5, 200_000, one.sum()).astype(np.int32), one, np.arange(one.size)) for one in lengths]


async def answer_all(target, dimensions, packs):
    encoder = TritonEncoder(target, "encoder_0", dimensions)
    deadline = time.monotonic() + READY_S
    while True:
        try:
            await encoder.encode(packs[0])
            break
        except PolarvecServerError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
    try:
        return await asyncio.gather(*(encoder.encode(pack) for pack in packs), return_exceptions=True)
    finally:
        await encoder.close()


async def test_every_pack_gets_its_own_vectors(target, packs, tiny_model, cache):
    folder = read_folder(cache / "models" / tiny_model)
    answers = await answer_all(target, folder.dimensions, packs)
    architecture = read_architecture(folder.encoder_path)
    engine = build_engine(folder.encoder_path, architecture, folder.pooling, Choice("openvino", "f32", ""), 2)
    for pack, answer in zip(packs, answers, strict=True):
        assert isinstance(answer, np.ndarray), answer
        expected = encode_all(engine, PackedBatch(pack.token_ids, pack.lengths))
        norms = np.linalg.norm(answer, axis=1) * np.linalg.norm(expected, axis=1)
        assert ((answer * expected).sum(axis=1) / norms).min() > 0.99999
