"""Generated code of tei.v1, the interface of text-embeddings-inference; see `make proto`."""
