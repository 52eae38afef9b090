"""The config.pbtxt for GPUs in a real tritonserver, as far as a machine without a GPU can go."""

import subprocess

import pytest
from polarvec_encoder.gpu import find_gpus
from polarvec_server.config import load_settings
from polarvec_server.prepare import prepare_models
from polarvec_server.run_directory import shared_memory_prefix
from polarvec_server.tritonserver import TritonPlan, find_triton, free_port


@pytest.mark.skipif(bool(find_gpus().gpus), reason="this machine has a GPU, so tritonserver would load the model")
@pytest.mark.parametrize(
    ("gpus", "complaint"),
    [("", "has kind KIND_GPU but no GPUs are available"), ("0,1", "specifies invalid or unsupported gpu id 0")],
    ids=["every one", "two"],
)
def test_only_the_gpu_is_missing(tiny_model, cache, tmp_path, gpus, complaint):
    """Triton reads the whole file before it looks for GPUs: a mistake in it would be the complaint."""
    settings = load_settings(model=tiny_model, cache_dir=cache, engine="cuda", precision="bf16", gpus=gpus)
    prepare_models(settings, tmp_path / "repository", lambda _: None, 0, elsewhere=True)
    install, prefix = find_triton("", tmp_path), shared_memory_prefix()
    plan = TritonPlan(install, tmp_path / "repository", tmp_path, free_port(), 60, prefix)
    done = subprocess.run(
        plan.command(), env=plan.environment(), capture_output=True, text=True, timeout=60, check=False
    )
    plan.clean_up()
    assert done.returncode == 1
    assert f"instance group encoder_0_0 of model encoder_0 {complaint}" in done.stdout + done.stderr
