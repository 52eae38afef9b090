"""config.json becomes an architecture, or a refusal that says what is wrong."""

import json

import pytest
from encoder_folders import tiny_config
from polarvec_encoder.architecture import read_architecture
from polarvec_encoder.errors import ModelRefused


def write_config(folder, model_type="xlm-roberta", **changes):
    family = "xlm-roberta" if model_type == "roberta" else model_type
    config = {"model_type": model_type, "hidden_act": "gelu", "pad_token_id": 1} | tiny_config(family) | changes
    folder.joinpath("config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return folder


@pytest.mark.parametrize(
    ("model_type", "first_position", "skips_padding"),
    [("xlm-roberta", 2, True), ("roberta", 2, True), ("bert", 0, False)],
)
def test_each_family_counts_positions_its_own_way(tmp_path, model_type, first_position, skips_padding):
    architecture = read_architecture(write_config(tmp_path, model_type))
    assert (architecture.first_position, architecture.skips_padding) == (first_position, skips_padding)
    assert (architecture.layers, architecture.hidden, architecture.heads) == (2, 64, 4)
    assert architecture.head_dimensions == 16
    assert architecture.max_tokens == 512


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "qwen2"}, "model_type 'qwen2'"),
        ({"hidden_act": "gelu_new"}, "hidden_act 'gelu_new'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'"),
        ({"is_decoder": True}, "decoder"),
        ({"hidden_size": None}, "needs hidden_size"),
        ({"num_hidden_layers": 0}, "needs num_hidden_layers"),
        ({"vocab_size": "300"}, "needs vocab_size"),
        ({"num_attention_heads": 7}, "not a multiple"),
        ({"layer_norm_eps": 0}, "layer_norm_eps"),
        ({"max_position_embeddings": 2}, "no position"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_config_that_is_not_ours_is_refused(tmp_path, changes, message):
    with pytest.raises(ModelRefused, match=message):
        read_architecture(write_config(tmp_path, **changes))


@pytest.mark.parametrize("content", [None, "{", "[]"], ids=["missing", "broken", "list"])
def test_an_unreadable_config_is_refused(tmp_path, content):
    if content is not None:
        tmp_path.joinpath("config.json").write_text(content)
    with pytest.raises(ModelRefused, match=r"config\.json"):
        read_architecture(tmp_path)
