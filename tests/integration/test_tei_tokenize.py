"""Tokens of tei.v1 against a real server: text to tokens and back."""

import grpc
import pytest
import tei_wire as wire
from tei_calls import LONG, TEXT, refusal, told


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.target) as channel:
        yield channel


@pytest.mark.parametrize("prompt_name", [None, "query"])
def test_tokens_are_those_of_the_model_and_cover_the_bytes_of_the_text(channel, client, prompt_name):
    prompt = {"prompt_name": prompt_name} if prompt_name else {}
    request = wire.make("EncodeRequest", inputs=TEXT, add_special_tokens=True, **prompt)
    tokens = wire.call(channel, "Tokenize/Tokenize")(request, timeout=30).tokens
    counted = client.tokenize(TEXT, input_type="query" if prompt_name else "raw", include_ids=True)
    assert [token.id for token in tokens] == list(counted.token_ids)
    assert [token.special for token in tokens] == [True, *[False] * (len(tokens) - 2), True]
    for token in (tokens[0], tokens[-1]):
        assert not token.HasField("start") and not token.HasField("stop")
    assert [tokens[0].text, tokens[-1].text] == ["<s>", "</s>"]
    whole = (client.model().prompts["query"] + TEXT if prompt_name else TEXT).encode()
    for token in tokens[1:-1]:
        assert token.HasField("start") and whole[token.start : token.stop].decode() == token.text
    covered = {place for token in tokens[1:-1] for place in range(token.start, token.stop)}
    assert {whole[place : place + 1] for place in set(range(len(whole))) - covered} <= {b" "}


def test_tokens_come_without_special_ones_unless_asked_for(channel):
    tokens = wire.call(channel, "Tokenize/Tokenize")(wire.make("EncodeRequest", inputs=TEXT), timeout=30).tokens
    assert tokens and not any(token.special for token in tokens)


def test_a_text_of_many_tokens_is_split_uncut(channel):
    tokens = wire.call(channel, "Tokenize/Tokenize")(wire.make("EncodeRequest", inputs=LONG * 10), timeout=30).tokens
    assert len(tokens) > 10_000
    assert tokens[-1].stop == len((LONG * 10).encode())


def test_tokens_become_text_again(channel):
    text = TEXT.removesuffix(" 🐧")
    request = wire.make("EncodeRequest", inputs=text, add_special_tokens=True)
    ids = [token.id for token in wire.call(channel, "Tokenize/Tokenize")(request, timeout=30).tokens]
    decode = wire.call(channel, "Tokenize/Decode")
    assert decode(wire.make("DecodeRequest", ids=ids), timeout=30).text == f"<s> {text}</s>"
    assert decode(wire.make("DecodeRequest", ids=ids, skip_special_tokens=True), timeout=30).text == text


def test_ids_that_are_no_tokens_are_refused(channel):
    code = grpc.StatusCode.INVALID_ARGUMENT
    assert refusal(channel, "Tokenize/Decode") == (code, "INVALID_FIELD", "ids")
    assert refusal(channel, "Tokenize/Decode", ids=[5, 2**32 - 1]) == (code, "INVALID_FIELD", "ids[1]")
    assert refusal(channel, "Tokenize/Decode", ids=[5] * 300_000) == (code, "TOO_MANY_TEXTS", "ids")


def test_streams_of_tokens_keep_the_order_of_their_items(channel):
    texts = [f"문서 {number} " + "가나다 " * (number * 37 % 90) for number in range(60)]
    requests = (wire.make("EncodeRequest", inputs=text) for text in texts)
    split = [
        [token.id for token in answer.tokens]
        for answer in wire.call(channel, "Tokenize/TokenizeStream")(requests, timeout=60)
    ]
    lists = (wire.make("DecodeRequest", ids=ids) for ids in split)
    joined = [answer.text for answer in wire.call(channel, "Tokenize/DecodeStream")(lists, timeout=60)]
    assert joined == [text.strip() for text in texts]


def test_a_stream_of_tokens_ends_at_the_first_bad_item(channel):
    requests = [wire.make("EncodeRequest", inputs=text) for text in ("하나", "둘", "", "넷")]
    answers = []
    with pytest.raises(grpc.RpcError) as caught:
        for answer in wire.call(channel, "Tokenize/TokenizeStream")(iter(requests), timeout=30):
            answers.append(answer)
    assert len(answers) == 2 and told(caught.value)[1] == "EMPTY_TEXT"
