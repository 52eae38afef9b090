import os
from pathlib import Path

import pytest
from polarvec_server import tritonserver
from polarvec_server.children import process_start_time
from polarvec_server.errors import ConfigError
from polarvec_server.run_directory import remove_orphans, shared_memory_prefix
from polarvec_server.tritonserver import TritonInstall, TritonPlan, find_triton


def plan(directory: Path) -> TritonPlan:
    return TritonPlan(
        install=TritonInstall(Path("/opt/tritonserver"), {}),
        repository=directory / "repository",
        socket_directory=directory,
        metrics_port=18002,
        load_timeout_s=60,
        shared_memory_prefix=shared_memory_prefix(),
    )


def test_the_packages_binary_is_found_and_its_stub_is_executable(tmp_path):
    install = find_triton("", tmp_path)
    assert os.access(install.binary, os.X_OK)
    (stub,) = tmp_path.rglob("triton_python_backend_stub")
    assert stub.stat().st_mode & 0o777 == 0o755


def test_too_old_a_c_library_gets_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "confstr", lambda _: "glibc 2.31")
    with pytest.raises(ConfigError, match=r"needs glibc 2\.35 or newer, here is glibc 2\.31"):
        find_triton("", tmp_path)


def test_a_missing_libpython_gets_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(tritonserver.sysconfig, "get_config_var", lambda _: "/nowhere")

    def not_there(name):
        raise OSError(name)

    monkeypatch.setattr(tritonserver.ctypes, "CDLL", not_there)
    with pytest.raises(ConfigError, match=r"libpython3\.\d+\.so\.1\.0, which this Python lacks"):
        find_triton("", tmp_path)


def test_no_triton_at_all_gets_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(tritonserver.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="There is no tritonserver on PATH"):
        find_triton("", tmp_path)


def test_the_command_line_opens_nothing_but_the_socket_and_loopback_metrics(tmp_path):
    command = plan(tmp_path).command()
    assert "--allow-http=false" in command and "--model-control-mode=none" in command
    assert f"--grpc-address=unix:{tmp_path}/grpc" in command and "--metrics-address=127.0.0.1" in command
    (restricted,) = [flag for flag in command if flag.startswith("--grpc-restricted-protocol=")]
    assert "model-repository,shared-memory" in restricted
    assert restricted not in plan(tmp_path).command(), "the secret is new each time"


def test_settings_and_secrets_do_not_reach_triton(monkeypatch, tmp_path):
    monkeypatch.setenv("POLARVEC_MODEL", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert "secret" not in plan(tmp_path).environment().values()


def test_only_what_dead_supervisors_left_is_removed(tmp_path):
    own = f"polarvec-{os.getpid()}-{process_start_time(os.getpid())}-region"
    reused_pid = f"polarvec-{os.getpid()}-1-region"
    dead = "polarvec-999999999-5-region"
    strangers = ["triton_python_backend_shm_region_1", "polarvec-notes.txt", "polarvec-x-y-z"]
    for name in [own, reused_pid, dead, *strangers]:
        (tmp_path / name).write_text("")
    (tmp_path / "polarvec-999999998-5-directory").mkdir()
    remove_orphans(tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == {own, *strangers}
