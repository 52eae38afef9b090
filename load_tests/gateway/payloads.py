"""Texts as ready-made calls: serialised once, so that sending them costs the callers next to nothing."""

from __future__ import annotations

from collections.abc import Sequence

from polarvec_proto.v1 import embedding_pb2 as pb

EMBED = "/polarvec.v1.EmbeddingService/Embed"


def cut(texts: Sequence[str], texts_a_call: int) -> list[list[str]]:
    """Returns the texts of each call; what is too little for a whole call at the end is left out."""
    if len(texts) < texts_a_call:
        raise ValueError(f"{len(texts)} texts are too few for a call of {texts_a_call}")
    starts = range(0, len(texts) - texts_a_call + 1, texts_a_call)
    return [list(texts[start : start + texts_a_call]) for start in starts]


def make_payloads(texts: Sequence[str], texts_a_call: int, *, documents: bool = False) -> list[bytes]:
    """Returns serialised calls: queries if there is one text a call and not `documents`, documents otherwise."""
    query = texts_a_call == 1 and not documents
    kind = pb.INPUT_TYPE_QUERY if query else pb.INPUT_TYPE_DOCUMENT
    return [
        pb.EmbedRequest(texts=call, input_type=kind, truncation=pb.TRUNCATION_END).SerializeToString()
        for call in cut(texts, texts_a_call)
    ]
