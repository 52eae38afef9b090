"""nDCG@k for retrieval with one right document a query; ties go by place, so give the documents in order of ids."""

import numpy as np
from numpy.typing import NDArray


def ndcg_one_relevant(
    queries: NDArray[np.float32], documents: NDArray[np.float32], relevant: NDArray[np.int64], k: int = 10
) -> float:
    """Returns the mean nDCG@k.

    With one relevant document the ideal gain is 1, so a query's nDCG is 1 / log2(rank + 1) of that document, and 0
    beyond rank k (Järvelin and Kekäläinen, 2002). A document of the same score that stands earlier ranks first.

    Args:
        queries: (Q, D) float32, unit length.
        documents: (N, D) float32, unit length.
        relevant: (Q,) the place of the right document of each query.
        k: Ranks that count.
    """
    scores = queries @ documents.T
    right = scores[np.arange(len(queries)), relevant][:, None]
    places = np.arange(len(documents))[None, :]
    ranks = 1 + (scores > right).sum(axis=1) + ((scores == right) & (places < relevant[:, None])).sum(axis=1)
    return float(np.where(ranks <= k, 1.0 / np.log2(ranks + 1.0), 0.0).mean())
