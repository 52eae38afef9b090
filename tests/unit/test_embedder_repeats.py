"""What callers of the embedder see of repeats: nothing but the time saved."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polarvec_server.errors import TextTooLong, TooManyTexts
from polarvec_server.pipeline.admission import Admission
from polarvec_server.pipeline.dispatch import Dispatcher
from polarvec_server.pipeline.embedder import Embedder, Schedule
from polarvec_server.pipeline.limits import CallLimits
from polarvec_server.pipeline.postprocess import encode_vectors
from polarvec_server.pipeline.tokenizer import Tokenizer
from polarvec_server.pipeline.values import Encoding, InputType, Priority, TextOptions, Truncation, VectorOptions
from polarvec_server.pipeline.vector_cache import VectorCache

D = 16
MAX_TOKENS = 24
QUERY, DOCUMENT = TextOptions(InputType.QUERY), TextOptions(InputType.DOCUMENT)


class HashEncoder:
    """A vector is a function of its text's ids and of nothing else."""

    async def encode(self, pack):
        await asyncio.sleep(0)
        texts = np.split(pack.token_ids, np.cumsum(pack.lengths)[:-1])
        return np.stack(
            [np.random.default_rng(ids.astype(np.uint32)).normal(size=D).astype(np.float32) for ids in texts]
        )


@pytest.fixture(scope="module")
def tokenizer(tiny_model, cache):
    return Tokenizer(Path(cache / "models" / tiny_model / "tokenizer.json"), MAX_TOKENS)


def make(tokenizer, cache_bytes=0, max_call_tokens=100_000):
    dispatcher = Dispatcher(dict.fromkeys(Priority, HashEncoder()), 1000)
    dispatcher.set_available(True)
    embedder = Embedder(
        dimensions=D,
        model_prompts={"query": "query: "},
        limits=CallLimits(64, max_call_tokens, 1 << 20, 1 << 20),
        pack_tokens=64,
        tokenizer=tokenizer,
        admission=Admission(1 << 20, lambda: None),
        dispatcher=dispatcher,
        executor=ThreadPoolExecutor(1),
        known=VectorCache("f", D, cache_bytes) if cache_bytes else None,
    )
    return embedder, dispatcher


def schedule():
    return Schedule(Priority.BULK, None)


async def embed(embedder, texts, options=DOCUMENT, vectors=None):
    return await embedder.embed(texts, options, vectors or VectorOptions(), schedule())


WORDS = st.sampled_from(["서울", "Debian", "고래는 바다에 산다", "길다 " * 30, "길다 " * 40, "짧다 " * 3])


@settings(max_examples=60, deadline=None)
@given(
    groups=st.lists(st.lists(WORDS, min_size=1, max_size=12), min_size=1, max_size=3),
    cached=st.booleans(),
    truncation=st.sampled_from([Truncation.END, Truncation.START]),
)
def test_lists_with_repeats_give_what_their_texts_give_alone(tokenizer, groups, cached, truncation):
    async def check():
        together, dispatcher = make(tokenizer, 1 << 20 if cached else 0)
        options = [TextOptions(kind, truncation=truncation) for kind in (*InputType, InputType.RAW)[: len(groups)]]
        calls = list(zip(groups, options, strict=True))
        for _ in range(2):
            answers = await together.embed_together(calls, VectorOptions(), schedule())
            for (texts, option), answer in zip(calls, answers, strict=True):
                alone, _ = make(tokenizer)
                singly = [await embed(alone, [text], option) for text in texts]
                assert answer.vectors.tobytes() == b"".join(one.vectors.tobytes() for one in singly)
                for name in ("lengths", "full_counts"):
                    expected = [int(getattr(one.tokenized, name)[0]) for one in singly]
                    assert getattr(answer.tokenized, name).tolist() == expected
                cut = [row for row, one in enumerate(singly) if one.tokenized.cut_rows.size]
                assert answer.tokenized.cut_rows.tolist() == cut
        keys = set()
        for texts, option in calls:
            tokenized = await together.tokenize(texts, option)
            keys |= {ids.tobytes() for ids in np.split(tokenized.token_ids, tokenized.offsets[1:-1])}
        assert dispatcher.encoded.texts == len(keys) * (1 if cached else 2)

    asyncio.run(check())


async def test_texts_are_tokenized_once(tokenizer, monkeypatch):
    seen = []
    embedder, dispatcher = make(tokenizer)
    tokenize = tokenizer.tokenize
    monkeypatch.setattr(tokenizer, "tokenize", lambda texts, *rest: seen.append(list(texts)) or tokenize(texts, *rest))
    await embed(embedder, ["가", "나", "가", "가"])
    assert seen == [["가", "나"]]
    assert dispatcher.encoded.texts == 2
    assert embedder.repeats.counts.call == 2


async def test_texts_that_become_equal_when_cut_are_computed_once(tokenizer):
    embedder, dispatcher = make(tokenizer)
    options = TextOptions(InputType.DOCUMENT, truncation=Truncation.END)
    answer = await embed(embedder, ["길다 " * 30, "길다 " * 40], options)
    assert dispatcher.encoded.texts == 1
    assert answer.vectors[0].tobytes() == answer.vectors[1].tobytes()
    first, second = answer.tokenized.full_counts.tolist()
    assert MAX_TOKENS < first < second


async def test_an_error_names_the_place_in_the_callers_list(tokenizer):
    embedder, _ = make(tokenizer)
    with pytest.raises(TextTooLong) as error:
        await embed(embedder, ["가", "가", "나", "길다 " * 40, "길다 " * 40])
    assert error.value.field == "texts[3]"


async def test_the_limit_of_tokens_is_that_of_the_whole_list(tokenizer):
    embedder, dispatcher = make(tokenizer, max_call_tokens=20)
    with pytest.raises(TooManyTexts):
        await embed(embedder, ["서울은 수도이다"] * 10)
    ids = (await embedder.tokenize(["서울은 수도이다"], DOCUMENT)).token_ids.tolist()
    with pytest.raises(TooManyTexts):
        await embedder.embed_token_ids([ids] * 10, DOCUMENT, VectorOptions(), schedule())
    assert dispatcher.encoded.texts == 0


async def test_query_and_document_do_not_mix(tokenizer):
    embedder, dispatcher = make(tokenizer, 1 << 20)
    query, document = await embed(embedder, ["서울"], QUERY), await embed(embedder, ["서울"])
    assert dispatcher.encoded.texts == 2
    assert not np.array_equal(query.vectors, document.vectors)
    other = await embed(embedder, ["서울"], TextOptions(InputType.RAW, prompt_text="passage: "))
    assert dispatcher.encoded.texts == 3
    assert not np.array_equal(other.vectors, document.vectors)
    # The same ids behind other options are the same text.
    await embed(embedder, ["서울"], TextOptions(InputType.RAW, prompt_text="query: "))
    assert dispatcher.encoded.texts == 3


async def test_token_ids_and_texts_share_vectors(tokenizer):
    embedder, dispatcher = make(tokenizer, 1 << 20)
    text = await embed(embedder, ["서울은 수도이다"])
    ids = text.tokenized.token_ids.tolist()
    again = await embedder.embed_token_ids([ids, ids], DOCUMENT, VectorOptions(), schedule())
    assert dispatcher.encoded.texts == 1
    assert again.vectors.tobytes() == text.vectors.tobytes() * 2


@pytest.mark.parametrize("dimensions", [0, 8])
@pytest.mark.parametrize("unnormalized", [False, True])
@pytest.mark.parametrize("encoding", Encoding)
async def test_every_form_comes_from_one_kept_vector(tokenizer, dimensions, unnormalized, encoding):
    cached, dispatcher = make(tokenizer, 1 << 20)
    await embed(cached, ["고래는 바다에 산다"], DOCUMENT, VectorOptions(dimensions=8))
    options = VectorOptions(dimensions, unnormalized, encoding)
    answer = await embed(cached, ["고래는 바다에 산다"], DOCUMENT, options)
    fresh = await embed(make(tokenizer)[0], ["고래는 바다에 산다"], DOCUMENT, options)
    assert encode_vectors(answer.vectors, encoding).data == encode_vectors(fresh.vectors, encoding).data
    assert dispatcher.encoded.texts == 1


async def test_equal_calls_at_the_same_time_make_one_pack(tokenizer):
    embedder, dispatcher = make(tokenizer)
    answers = await asyncio.gather(*(embed(embedder, ["고래는 바다에 산다"]) for _ in range(50)))
    assert (dispatcher.encoded.packs, dispatcher.encoded.texts) == (1, 1)
    assert len({answer.vectors.tobytes() for answer in answers}) == 1
    assert embedder.repeats.counts.in_flight == 49
