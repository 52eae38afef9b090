"""A table of known encoder models: the revision to pin, and what their folders leave out.

Prompts and trained dimensions are the vendors' (model cards), revisions those that the public mteb results name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class KnownModel:
    """What is known of a model beyond its folder.

    Attributes:
        id: Its name on the hub.
        revision: The commit to pull, in full or its first 8 digits; empty means the newest.
        prompts: Prefixes by name, for folders that have none; "query" and "passage" are what input types select.
        trained_dimensions: Shorter dimensions that its makers trained it for, most first.
        aliases: Short names.
    """

    id: str
    revision: str = ""
    prompts: Mapping[str, str] = field(default_factory=dict)
    trained_dimensions: tuple[int, ...] = ()
    aliases: tuple[str, ...] = ()


def known_models() -> tuple[KnownModel, ...]:
    """Returns the table: models that the engines run (XLM-RoBERTa, RoBERTa and BERT), first the first model."""
    query = {"query": "query: "}
    e5 = {"query": "query: ", "passage": "passage: "}
    instruct = {
        "query": "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "
    }
    return (
        KnownModel(
            "dragonkue/snowflake-arctic-embed-l-v2.0-ko",
            "55ec6e9358a56d56af759bc8372e970caf8c305f",
            query,
            aliases=("arctic-ko",),
        ),
        KnownModel("Snowflake/snowflake-arctic-embed-l-v2.0", "edc2df7b", query, (256,), ("arctic-l-v2",)),
        KnownModel("BAAI/bge-m3", "5617a9f6", aliases=("bge-m3",)),
        KnownModel("dragonkue/BGE-m3-ko", "7074d66a", aliases=("bge-m3-ko",)),
        KnownModel("nlpai-lab/KURE-v1", "d14c8a94", aliases=("kure",)),
        KnownModel("ibm-granite/granite-embedding-278m-multilingual", "84e3546b", aliases=("granite-278m",)),
        KnownModel("intfloat/multilingual-e5-large", "ab10c1a7", e5, aliases=("e5-large",)),
        KnownModel("intfloat/multilingual-e5-base", "d13f1b27", e5, aliases=("e5-base",)),
        KnownModel("intfloat/multilingual-e5-small", "", e5),
        KnownModel("nlpai-lab/KoE5", "bc6d284c", e5, aliases=("koe5",)),
        KnownModel("intfloat/multilingual-e5-large-instruct", "baa7be48", instruct, aliases=("e5-large-instruct",)),
        KnownModel("upskyy/bge-m3-korean", "069ae062"),
        KnownModel("jhgan/ko-sroberta-multitask", "8fca7c9c", aliases=("ko-sroberta",)),
    )


def find_model(name: str) -> KnownModel | None:
    """Returns the model of that id or alias, or None."""
    return next((model for model in known_models() if name == model.id or name in model.aliases), None)
