"""What the adapters for Ray Data and Spark have in common, without either of them."""

from __future__ import annotations

import numpy as np
from polarvec._columns import ColumnEmbedder
from unit.scripted_server import RunningServer, vector


def test_column_ends_its_stream_and_does_not_cancel_it(scripted: RunningServer) -> None:
    embedder = ColumnEmbedder(scripted.target)
    column = embedder.embed(["a", "b"])
    embedder.clients.close()
    np.testing.assert_array_equal(column.values, [vector("a"), vector("b")])
    assert scripted.servicer.streams_ended == 1
