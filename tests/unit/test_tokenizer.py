import numpy as np
import pytest
from polarvec_server.errors import ConfigError, InvalidField, TextTooLong
from polarvec_server.models.folder import read_folder
from polarvec_server.models.random_weights import build_random
from polarvec_server.pipeline.tokenizer import Tokenizer
from polarvec_server.pipeline.values import InputType, TextOptions, Truncation
from texts import ODD, UNITS
from transformers import AutoTokenizer

REFUSE = TextOptions(InputType.DOCUMENT)
LONG = UNITS["korean"] * 40


@pytest.fixture(scope="module")
def folder(cache):
    return read_folder(build_random("tiny", cache / "models"))


@pytest.fixture(scope="module")
def tokenizer(folder):
    return Tokenizer(folder.tokenizer_file, 64)


def ids_of(tokenized, index):
    return tokenized.token_ids[tokenized.offsets[index] : tokenized.offsets[index + 1]].tolist()


@pytest.mark.parametrize("prompt", ["", "query: "])
def test_ids_are_those_of_transformers(folder, prompt):
    texts = [*ODD.values(), *UNITS.values()]
    tokenized = Tokenizer(folder.tokenizer_file, 8192).tokenize(texts, prompt, REFUSE)
    reference = AutoTokenizer.from_pretrained(folder.path)
    for index, text in enumerate(texts):
        assert ids_of(tokenized, index) == reference(prompt + text)["input_ids"], repr(text)


def test_ids_do_not_depend_on_the_other_texts(tokenizer):
    texts = ["짧은 글", "조금 더 긴 글입니다", "a"]
    together = tokenizer.tokenize(texts, "", REFUSE)
    for index, text in enumerate(texts):
        assert ids_of(together, index) == tokenizer.tokenize([text], "", REFUSE).token_ids.tolist()


def test_a_long_text_is_refused_with_its_counts(tokenizer):
    with pytest.raises(TextTooLong) as caught:
        tokenizer.tokenize(["짧다", LONG], "", REFUSE)
    assert caught.value.metadata["index"] == "1"
    assert caught.value.metadata["token_limit"] == "64"
    cut = tokenizer.tokenize([LONG], "", TextOptions(InputType.DOCUMENT, truncation=Truncation.END))
    assert int(caught.value.metadata["token_count"]) == cut.full_counts[0] > 64


@pytest.mark.parametrize("side", [Truncation.END, Truncation.START])
def test_a_cut_keeps_the_special_tokens_the_prompt_and_the_right_side(folder, tokenizer, side):
    whole = ids_of(Tokenizer(folder.tokenizer_file, 8192).tokenize([LONG], "query: ", REFUSE), 0)
    cut = tokenizer.tokenize([LONG, "짧다"], "query: ", TextOptions(InputType.QUERY, truncation=side))
    ids = ids_of(cut, 0)
    assert len(ids) == 64 and cut.full_counts.tolist()[0] == len(whole)
    assert ids[0] == whole[0] and ids[-1] == whole[-1]
    # "query: " is three tokens of this vocabulary.
    assert ids[1:4] == whole[1:4]
    assert ids[4:] == (whole[4:63] + whole[-1:] if side is Truncation.END else whole[-60:])
    assert cut.full_counts[1] == cut.lengths[1]


def test_exactly_the_limit_is_not_cut(folder):
    whole = Tokenizer(folder.tokenizer_file, 8192).tokenize([LONG], "", REFUSE)
    exact = Tokenizer(folder.tokenizer_file, int(whole.lengths[0])).tokenize([LONG], "", REFUSE)
    np.testing.assert_array_equal(whole.token_ids, exact.token_ids)


def test_an_error_about_a_text_that_is_no_list_has_no_number(tokenizer):
    with pytest.raises(TextTooLong) as caught:
        tokenizer.tokenize([LONG], "", TextOptions(InputType.RAW, field="inputs", single=True))
    assert caught.value.field == "inputs" and "index" not in caught.value.metadata
    assert caught.value.message.startswith("inputs has ")


@pytest.mark.parametrize("text", [*ODD.values(), *UNITS.values(), "", "plain ASCII", "é 가 🐧 é 가 🐧"])
def test_tokens_are_split_with_the_bytes_that_they_cover(folder, tokenizer, text):
    tokens = tokenizer.split(text, special_tokens=True)
    assert tokens.ids == ids_of(Tokenizer(folder.tokenizer_file, 8192).tokenize([text], "", REFUSE), 0)
    assert tokens.special[0] and tokens.special[-1] and not any(tokens.special[1:-1])
    data = text.encode()
    for piece, special, start, stop in zip(tokens.pieces, tokens.special, tokens.starts, tokens.stops, strict=True):
        assert special or data[start:stop].decode() == piece
    plain = tokenizer.split(text, special_tokens=False)
    assert plain.ids == tokens.ids[1:-1] and not any(plain.special)


def test_tokens_are_joined_to_the_text(tokenizer):
    text = "데비안은 자유로운 운영 체제입니다."
    ids = tokenizer.split(text, special_tokens=True).ids
    assert tokenizer.join(ids, skip_special_tokens=True) == text
    assert tokenizer.join(ids, skip_special_tokens=False) == f"<s> {text}</s>"


@pytest.mark.parametrize("unknown", [10_000_000, 2**32 - 1])
def test_an_id_that_is_no_token_is_named_by_its_place(tokenizer, unknown):
    with pytest.raises(InvalidField) as caught:
        tokenizer.join([5, 6, unknown, 7, unknown], skip_special_tokens=True)
    assert caught.value.field == "ids[2]"


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        Tokenizer(tmp_path / "tokenizer.json", 512)
