import pytest
from polarvec_server.config import load_settings
from polarvec_server.errors import ConfigError


def test_settings_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("POLARVEC_GRPC_PORT", "6000")
    assert load_settings().grpc_port == 6000
    assert load_settings(grpc_port=7000).grpc_port == 7000
    assert load_settings(grpc_port=None).grpc_port == 6000


def test_an_unknown_setting_is_refused_with_the_nearest_name(monkeypatch):
    monkeypatch.setenv("POLARVEC_GRPC_PROT", "6000")
    with pytest.raises(ConfigError, match="POLARVEC_GRPC_PROT; did you mean POLARVEC_GRPC_PORT"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GRPC_PORT", "0"),
        ("GRPC_PORT", "many"),
        ("ENGINE", "onnx"),
        ("PRECISION", "int4"),
        ("GELU", "relu"),
        ("GPUS", "0,one"),
        ("ENGINE_STREAMS", "-1"),
        ("DEFAULT_DEADLINE_S", "-1"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name(monkeypatch, name, value):
    monkeypatch.setenv(f"POLARVEC_{name}", value)
    with pytest.raises(ConfigError, match=f"POLARVEC_{name}"):
        load_settings()


def test_a_child_gets_the_very_same_settings(monkeypatch, tmp_path):
    settings = load_settings(model="tiny", cache_dir=tmp_path, workers=3, reflection=False, triton_binary="")
    for name, value in settings.as_environment().items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings


def test_models_are_separated_by_commas():
    assert load_settings(model="a/b, ./c ,").model_names == ("a/b", "./c")


@pytest.mark.parametrize("precision", ["auto", "f32", "bf16", "fp16", "int8", "fp8"])
def test_every_precision_is_a_setting(monkeypatch, precision):
    monkeypatch.setenv("POLARVEC_PRECISION", precision)
    assert load_settings().precision == precision


def test_gpus_are_numbers_separated_by_commas():
    assert load_settings().gpu_numbers == ()
    assert load_settings(gpus="2,0,2").gpu_numbers == (0, 2)


def test_engines_keep_their_weights_by_fingerprint(tmp_path):
    assert load_settings(cache_dir=tmp_path).engine_cache("0123") == tmp_path / "engines" / "0123"
    assert load_settings(engine_cache_dir=str(tmp_path / "e")).engine_cache("0123") == tmp_path / "e" / "0123"
    assert load_settings(engine_cache_dir="none").engine_cache("0123") is None
