"""Files of any length to files of vectors, in bounded memory, by jobs that go on where they were killed.

from polarvec import Client
from polarvec.bulk import embed_file

with Client("localhost:50051") as client:
    summary = embed_file(client, "passages.jsonl", "vectors.parquet", input_type="document", field="text")
"""

from polarvec.bulk._embed_file import BulkSummary, embed_file
from polarvec.bulk._pace import BulkProgress

__all__ = ["BulkProgress", "BulkSummary", "embed_file"]
