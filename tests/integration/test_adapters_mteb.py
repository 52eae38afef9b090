"""The mteb encoder: a local retrieval task from the Korean FAQ scores what our own nDCG says of the same vectors."""

import numpy as np
import pytest
from ndcg import ndcg_one_relevant
from polarvec import Client, NotFound
from test_korean_faq import EXPECTED, TOLERANCE


@pytest.fixture(scope="module")
def mteb():
    return pytest.importorskip("mteb", reason="the extra mteb is not installed")


@pytest.fixture(scope="module")
def task(mteb, faq):
    """Question i is answered by answer i; nothing comes from a hub."""
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
    from mteb.abstasks.task_metadata import TaskMetadata

    class DebianFaqRetrieval(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name="DebianFaqKoRetrieval",
            description="Questions of the Korean Debian FAQ and their answers.",
            type="Retrieval",
            category="t2t",
            modalities=["text"],
            dataset={"path": "local/debian-faq-ko", "revision": "1"},
            eval_splits=["test"],
            eval_langs=["kor-Hang"],
            main_score="ndcg_at_10",
            reference=None,
            date=None,
            domains=None,
            task_subtypes=None,
            license="gpl-3.0",
            annotations_creators="derived",
            dialect=[],
            sample_creation="found",
            bibtex_citation="",
        )

        def load_data(self, num_proc=None, **kwargs):
            names = [f"{place:03}" for place in range(len(faq))]
            split = RetrievalSplitData(
                queries=Dataset.from_list(
                    [{"id": f"q{name}", "text": row["question_ko"]} for name, row in zip(names, faq, strict=True)]
                ),
                corpus=Dataset.from_list(
                    [
                        {"id": f"d{name}", "text": row["answer_ko"], "title": ""}
                        for name, row in zip(names, faq, strict=True)
                    ]
                ),
                relevant_docs={f"q{name}": {f"d{name}": 1} for name in names},
                top_ranked=None,
            )
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    return DebianFaqRetrieval()


@pytest.mark.timeout(240)
def test_mteb_scores_what_we_score(mteb, task, server, faq):
    from mteb.types import PromptType
    from polarvec.mteb import PolarvecEncoder

    vectors = {}

    class Watched(PolarvecEncoder):
        def encode(self, inputs, **kwargs):
            vectors[kwargs["prompt_type"]] = found = super().encode(inputs, **kwargs)
            return found

    encoder = Watched(server.target)
    result = mteb.evaluate(encoder, task, cache=None, encode_kwargs={"batch_size": 32}, show_progress_bar=False)
    encoder.close()
    (scores,) = result.task_results[0].scores["test"]
    ours = ndcg_one_relevant(vectors[PromptType.query], vectors[PromptType.document], np.arange(len(faq)))
    # mteb rounds its scores to five places.
    assert scores["ndcg_at_10"] == pytest.approx(ours, abs=1e-5)
    assert scores["ndcg_at_10"] == pytest.approx(EXPECTED["question_ko -> answer_ko"][0], abs=TOLERANCE)


def test_the_model_is_named_with_its_embedding_space(server):
    from polarvec.mteb import PolarvecEncoder

    encoder = PolarvecEncoder(server.target, dimensions=64)
    with Client(server.target) as client:
        served = client.model()
    meta = encoder.mteb_model_meta
    assert (meta.name, meta.revision, meta.embed_dim) == ("polarvec/e5-small", served.revision, 64)
    assert (meta.max_tokens, meta.similarity_fn_name.value) == (512, "cosine")
    assert meta.experiment_kwargs["fingerprint"] == served.fingerprint
    assert PolarvecEncoder(server.target).mteb_model_meta != meta
    with pytest.raises(NotFound):
        PolarvecEncoder(server.target, model="other")


@pytest.mark.parametrize("encoding", ["float32", "float16", "int8", "binary"])
def test_prompt_types_choose_the_side(mteb, server, encoding):
    from mteb.types import PromptType
    from polarvec.mteb import PolarvecEncoder

    encoder = PolarvecEncoder(server.target, encoding=encoding)
    texts = ["대한민국의 수도는 서울이다.", "한글은 세종대왕이 창제하였다.", "cats"]
    batches = [{"text": texts[:2]}, {"text": texts[2:]}]

    def encode(prompt_type, **kwargs):
        return encoder.encode(
            batches, task_metadata=None, hf_split="test", hf_subset="default", prompt_type=prompt_type, **kwargs
        )

    with Client(server.target) as client:
        for prompt_type, input_type in [
            (PromptType.query, "query"),
            (PromptType.document, "document"),
            (None, "raw"),
        ]:
            found = encode(prompt_type)
            wanted = client.embed(texts, input_type=input_type)
            assert (found.dtype, found.shape) == (np.float32, wanted.shape)
            if encoding == "binary":
                np.testing.assert_array_equal(found > 0, wanted > 0)
                assert set(np.unique(found)) == {-1, 1}
            else:
                np.testing.assert_allclose(found, wanted, atol=2e-6 if encoding == "float32" else 2e-3)
    with pytest.raises(ValueError, match="encoding='int8'"):
        encode(PromptType.query, precision="int8")
