"""What a folder says is read; what it does not say, or says wrongly, is refused by name."""

import json
import shutil
from pathlib import Path

import pytest
from polarvec_server.models.folder import ModelFolderError, fingerprint, read_folder
from unit.model_folders import change, module, write, write_small_model


@pytest.fixture(scope="module")
def pattern(tmp_path_factory):
    return write_small_model(tmp_path_factory.mktemp("pattern") / "small")


@pytest.fixture
def folder(pattern, tmp_path):
    return Path(shutil.copytree(pattern, tmp_path / "small"))


def test_folder_says_everything(folder):
    model = read_folder(folder)
    assert (model.id, model.revision, model.model_type, model.architecture) == ("small", "", "bert", "BertModel")
    assert (model.dimensions, model.max_tokens, model.pooling, model.normalize) == (32, 48, "mean", True)
    assert model.prompts == {"query": "query: ", "passage": "passage: "}
    assert model.weight_files == (folder / "model.safetensors",)
    assert model.tokenizer_file == folder / "tokenizer.json"


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False}, "mean"),
        ({"pooling_mode_lasttoken": True}, "last_token"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": "cls", "embedding_dimension": 32}, "cls"),
        ({"pooling_mode": "lasttoken"}, "last_token"),
        ({"pooling_mode": ["mean"]}, "mean"),
        ({"pooling_mode": "mean", "pooling_mode_mean_tokens": True}, "mean"),
    ],
)
def test_both_spellings_of_pooling_are_read(folder, pooling, expected):
    write(folder, "1_Pooling/config.json", pooling)
    assert read_folder(folder).pooling == expected


@pytest.mark.parametrize(
    ("model_type", "positions", "pad", "max_seq_length", "expected"),
    [
        ("bert", 64, 1, 48, 48),
        ("bert", 64, 1, 100, 64),
        ("xlm-roberta", 514, 1, 514, 512),
        ("xlm-roberta", 8194, 1, 8192, 8192),
        ("roberta", 514, 1, 128, 128),
        ("xlm-roberta", 514, 1, None, 64),
        ("bert", 40, 0, None, 40),
    ],
)
def test_max_tokens_is_the_smaller_of_both_limits(folder, model_type, positions, pad, max_seq_length, expected):
    change(folder, "config.json", model_type=model_type, max_position_embeddings=positions, pad_token_id=pad)
    change(folder, "sentence_bert_config.json", max_seq_length=max_seq_length)
    assert read_folder(folder).max_tokens == expected


def test_optional_files_may_be_missing(folder):
    for name in ("config_sentence_transformers.json", "sentence_bert_config.json", "tokenizer_config.json"):
        (folder / name).unlink()
    write(folder, "modules.json", [module("Transformer", ""), module("Pooling", "1_Pooling")])
    model = read_folder(folder)
    assert (model.prompts, model.normalize, model.max_tokens) == ({}, False, 64)


def test_transformer_in_a_folder_of_its_own(folder):
    inner = folder / "0_Transformer"
    inner.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "sentence_bert_config.json"):
        (folder / name).rename(inner / name)
    write(folder, "modules.json", [module("Transformer", "0_Transformer"), module("Pooling", "1_Pooling")])
    model = read_folder(folder)
    assert (model.encoder_path, model.max_tokens) == (inner, 48)


def test_newer_module_names_are_read(folder):
    newer = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
        {
            "idx": 1,
            "name": "1",
            "path": "1_Pooling",
            "type": "sentence_transformers.sentence_transformer.modules.Pooling",
        },
    ]
    write(folder, "modules.json", newer)
    assert read_folder(folder).pooling == "mean"


def test_shards_are_found_through_their_index(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"x")
    write(
        folder,
        "model.safetensors.index.json",
        {"weight_map": {"a": "model-00002-of-00002.safetensors", "b": "model-00001-of-00002.safetensors"}},
    )
    assert [file.name[6:11] for file in read_folder(folder).weight_files] == ["00001", "00002"]


def test_identity_comes_from_polarvec_json(folder):
    write(folder, "polarvec.json", {"id": "a/b", "revision": "0123", "source": "here"})
    model = read_folder(folder)
    assert (model.id, model.revision, model.source) == ("a/b", "0123", "here")


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        (None, {"query": "query: ", "passage": "passage: "}),
        ({"query": "", "document": ""}, {"query": "query: ", "passage": "passage: "}),
        ({"query": "mine: "}, {"query": "mine: "}),
    ],
    ids=["none", "empty", "own"],
)
def test_catalogue_adds_what_the_folder_leaves_out(folder, prompts, expected):
    write(folder, "polarvec.json", {"id": "intfloat/multilingual-e5-base"})
    write(folder, "config_sentence_transformers.json", {"prompts": prompts})
    assert read_folder(folder).prompts == expected


def test_catalogue_knows_trained_dimensions(folder):
    write(folder, "polarvec.json", {"id": "Snowflake/snowflake-arctic-embed-l-v2.0"})
    assert read_folder(folder).trained_dimensions == (256,)


_T, _P, _N = module("Transformer", ""), module("Pooling", "1_Pooling"), module("Normalize", "2_Normalize")


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("modules.json", None, "modules.json is missing"),
        ("modules.json", {}, "not a list"),
        ("modules.json", [], "lists nothing"),
        ("modules.json", [_T, _P, module("Dense", "2_Dense"), _N], "Dense"),
        ("modules.json", [_T, _N, _P], "in this order"),
        ("modules.json", [{"type": "mine.Pooling", "path": "x"}], "never run here"),
        ("modules.json", [_T, module("Pooling", "../elsewhere")], "outside the folder"),
        ("modules.json", [{"path": "x"}], "without a type"),
        ("1_Pooling/config.json", None, "1_Pooling/config.json is missing"),
        ("1_Pooling/config.json", {"word_embedding_dimension": 32}, "does not say how the model pools"),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "pooling_mode_max_tokens"),
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, "cls + mean"),
        ("1_Pooling/config.json", {"pooling_mode": "mean", "pooling_mode_cls_token": True}, "cls + mean"),
        ("1_Pooling/config.json", {"pooling_mode": "max"}, "asks for max"),
        ("1_Pooling/config.json", {"pooling_mode": "mean", "include_prompt": False}, "leaves the prompt out"),
        ("1_Pooling/config.json", {"pooling_mode": "mean", "word_embedding_dimension": 31}, "its pooling has 31"),
        ("1_Pooling/config.json", ["mean"], "a list where an object"),
        ("config.json", None, "config.json is missing"),
        ("tokenizer.json", None, "tokenizer.json is missing"),
        ("model.safetensors", None, "model.safetensors is missing"),
        ("model.safetensors.index.json", {"weight_map": {"a": "../../etc/passwd"}}, "is missing"),
        ("model.safetensors.index.json", {}, "no weight_map"),
        ("config_sentence_transformers.json", {"prompts": {"query": 1}}, "prompts"),
        ("config_sentence_transformers.json", {"prompts": {}, "default_prompt_name": "query"}, "'query'"),
        ("sentence_bert_config.json", {"max_seq_length": 0}, "max_seq_length: 0"),
        ("sentence_bert_config.json", {"max_seq_length": "512"}, "whole number"),
        ("sentence_bert_config.json", {"max_seq_length": 2}, "too few"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "lower case"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": "x.Y"}}, "never run here"),
        ("polarvec.json", {"id": ""}, "id: ''"),
        ("polarvec.json", {"revision": 3}, "revision: 3"),
    ],
)
def test_refusal_names_the_problem(folder, name, value, complaint):
    if name == "model.safetensors.index.json":
        (folder / "model.safetensors").unlink()
    if value is None:
        (folder / name).unlink()
    else:
        write(folder, name, value)
    with pytest.raises(ModelFolderError) as caught:
        read_folder(folder)
    assert complaint in caught.value.problem
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"auto_map": {"AutoModel": "modeling_new.NewModel"}}, "never run here"),
        ({"hidden_size": None}, "does not say hidden_size"),
        ({"hidden_size": True}, "hidden_size: True"),
        ({"max_position_embeddings": None}, "does not say max_position_embeddings"),
        ({"model_type": None}, "model_type"),
        ({"model_type": "roberta", "pad_token_id": "1"}, "pad_token_id: '1'"),
        ({"architectures": "BertModel"}, "architectures"),
    ],
)
def test_config_is_checked(folder, values, complaint):
    change(folder, "config.json", **values)
    with pytest.raises(ModelFolderError, match=complaint):
        read_folder(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt"])
def test_pickles_alone_are_refused(folder, name):
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(ModelFolderError, match=f"only pickled weights .{name}.*can run code"):
        read_folder(folder)


@pytest.mark.parametrize(
    "name", ["config.json", "modules.json", "1_Pooling/config.json", "tokenizer.json", "polarvec.json"]
)
@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"{", "not valid JSON"),
        (b"", "not valid JSON"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply|not valid JSON"),
    ],
    ids=["open", "empty", "bytes", "deep"],
)
def test_broken_json_is_refused_by_name(folder, name, content, complaint):
    (folder / name).write_bytes(content)
    with pytest.raises(ModelFolderError, match=f"{name} is ({complaint})"):
        read_folder(folder)


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(ModelFolderError, match="no such folder"):
        read_folder(tmp_path / "nowhere")


def _weights(folder):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def _tokenizer(folder):
    values = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    values["model"]["vocab"]["cat"] = 13
    write(folder, "tokenizer.json", values)


@pytest.mark.parametrize(
    "alter",
    [
        _weights,
        _tokenizer,
        lambda folder: write(folder, "1_Pooling/config.json", {"pooling_mode": "cls"}),
        lambda folder: write(folder, "modules.json", [_T, _P]),
        lambda folder: write(folder, "config_sentence_transformers.json", {"prompts": {"query": "q: "}}),
        lambda folder: write(folder, "sentence_bert_config.json", {"max_seq_length": 47}),
        lambda folder: change(folder, "config.json", layer_norm_eps=1e-5),
    ],
    ids=["weights", "tokenizer", "pooling", "normalize", "prompts", "max_tokens", "eps"],
)
def test_fingerprint_changes_with_the_space(folder, tmp_path, alter):
    before = fingerprint(read_folder(folder), "f32", tmp_path / "cache")
    alter(folder)
    after = fingerprint(read_folder(folder), "f32", tmp_path / "cache")
    assert before != after
    assert len(before) == len(after) == 12
    assert int(after, 16) >= 0


def test_fingerprint_stays_for_the_same_space(folder, tmp_path):
    before = fingerprint(read_folder(folder), "f32", tmp_path / "cache")
    assert before != fingerprint(read_folder(folder), "bf16", tmp_path / "cache")
    change(folder, "config.json", transformers_version="9.9", torch_dtype="float32")
    write(folder, "polarvec.json", {"id": "other"})
    moved = Path(shutil.copytree(folder, tmp_path / "moved"))
    assert before == fingerprint(read_folder(moved), "f32", tmp_path / "other cache")


def test_weights_are_hashed_once(folder, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = fingerprint(read_folder(folder), "f32", cache)
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("read again"))
    assert fingerprint(read_folder(folder), "f32", cache) == first


def test_fingerprint_needs_no_writable_cache(folder, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert fingerprint(read_folder(folder), "f32", blocked) == fingerprint(read_folder(folder), "f32", tmp_path / "c")
