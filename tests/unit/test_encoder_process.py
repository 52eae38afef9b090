"""What the supervisor makes of canaries that are not answered; real faults are in tests/chaos."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from polarvec_server.encoder_process import EncoderProcess
from polarvec_server.errors import EncoderDied
from polarvec_server.pipeline.canary import CanaryPack
from polarvec_server.pipeline.values import Pack
from polarvec_server.tritonserver import TritonInstall, TritonPlan

VECTOR = np.array([0.6, 0.8], np.float32)
CANARY = CanaryPack(Pack(np.array([1], np.int32), np.array([1], np.int32), np.zeros(1, np.int64)), VECTOR)


class ScriptedEncoder:
    """Fault injection: a stub that stops at a chosen moment cannot be had from a real one."""

    def __init__(self, *answers) -> None:
        self.answers, self.asked = list(answers), 0

    async def encode(self, pack):
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if answer is None:
            await asyncio.get_running_loop().create_future()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def live(self, timeout_s):
        return True


def lost(directory: Path, encoder: ScriptedEncoder, timeout_s: float = 30.0) -> str:
    async def check() -> str:
        plan = TritonPlan(TritonInstall(Path("/nowhere"), {}), directory, directory, 1, 60, "none-")
        process = EncoderProcess(
            plan, {}, canary_interval_s=0.01, canary_timeout_s=timeout_s, on_restart=lambda cause: None
        )
        process._encoders["m"] = encoder
        return await asyncio.wait_for(process._check("m", CANARY), 20)

    return asyncio.run(check())


@pytest.mark.parametrize("stuck", [1, 3], ids=["one", "three"])
def test_a_stub_that_stopped_with_canaries_in_hand_is_found_by_the_next_one(tmp_path, stuck):
    assert lost(tmp_path, ScriptedEncoder(*[None] * stuck, EncoderDied())) == "stub"


def test_a_late_answer_to_a_later_canary_is_an_answer(tmp_path):
    assert lost(tmp_path, ScriptedEncoder(None, VECTOR[np.newaxis])) == ""


def test_canaries_that_nobody_answers_are_a_hang_and_grow_rarer(tmp_path):
    encoder = ScriptedEncoder(None)
    assert lost(tmp_path, encoder, timeout_s=1.0) == "hang"
    # After 10, 30, 70, 150, 310, 630 ms.
    assert 2 <= encoder.asked <= 7
