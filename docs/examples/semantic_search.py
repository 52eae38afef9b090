"""Semantic search over the Korean Debian FAQ: vectors from Polarvec, kept on disk by Qdrant's local mode."""

import json
import sys
from contextlib import closing
from pathlib import Path

from polarvec import Client
from qdrant_client import QdrantClient, models

FAQ = Path("tests/data/debian-faq-ko/faq.jsonl")
STORE, COLLECTION = ".run/semantic-search", "debian-faq"


def index(store: QdrantClient, client: Client, rows: list[dict[str, str]]) -> None:
    """Embeds the answers once; the collection remembers in which embedding space its vectors are."""
    served = client.model()
    if store.collection_exists(COLLECTION):
        known = store.get_collection(COLLECTION).config.metadata["fingerprint"]
        if known != served.fingerprint:
            sys.exit(f"{STORE} holds vectors of {known}, the server makes {served.fingerprint}: delete it first")
        return
    vectors = client.embed_documents([row["answer_ko"] for row in rows], truncation="end")
    size = models.VectorParams(size=served.dimensions, distance=models.Distance.COSINE)
    store.create_collection(COLLECTION, vectors_config=size, metadata={"fingerprint": served.fingerprint})
    store.upload_collection(COLLECTION, vectors=vectors, payload=rows, ids=range(len(rows)))


with Client("localhost:50051", timeout_s=120) as client, closing(QdrantClient(path=STORE)) as store:
    index(store, client, [json.loads(line) for line in FAQ.read_text(encoding="utf-8").splitlines()])
    question = " ".join(sys.argv[1:]) or "한글 입력은 어떻게 하나요?"
    for hit in store.query_points(COLLECTION, query=client.embed_queries(question), limit=3).points:
        print(f"{hit.score:.3f}  {hit.payload['question_ko']}")
