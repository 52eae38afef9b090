"""The values that travel from stage to stage, and the seam behind which they are computed."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class InputType(enum.Enum):
    """What a text is for."""

    QUERY = "query"
    DOCUMENT = "document"
    RAW = "raw"


class Truncation(enum.Enum):
    """What happens to a text over the model's limit."""

    REFUSE = "refuse"
    END = "end"
    START = "start"


class Encoding(enum.Enum):
    """How the numbers of a vector are written."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"
    BINARY = "binary"


# Of one number.
_BITS = {Encoding.FLOAT32: 32, Encoding.FLOAT16: 16, Encoding.INT8: 8, Encoding.BINARY: 1}


class Priority(enum.IntEnum):
    """Who goes first: the lower number."""

    INTERACTIVE = 1
    BULK = 2

    # Enum's own is a Python function, and every call looks up its level ten times.
    __hash__ = int.__hash__


@dataclass(frozen=True, slots=True)
class TextOptions:
    """How texts become token ids."""

    input_type: InputType
    prompt_name: str | None = None
    prompt_text: str | None = None
    truncation: Truncation = Truncation.REFUSE
    # The field of the request that the texts came in, for error messages.
    field: str = "texts"
    # The field is one text and no list: errors name it without a number.
    single: bool = False
    # Numbers in the field of the texts at hand, where repeats were left out; None where the texts are the field's.
    places: tuple[int, ...] | None = None

    def place(self, index: int) -> int | None:
        """Returns a text's number in the field, None if it has none."""
        if self.single:
            return None
        return index if self.places is None else self.places[index]


@dataclass(frozen=True, slots=True)
class VectorOptions:
    """What the vectors shall look like; dimensions 0 means all."""

    dimensions: int = 0
    unnormalized: bool = False
    encoding: Encoding = Encoding.FLOAT32
    # What a shorter vector must be a multiple of: eight dimensions make a byte in ENCODING_BINARY.
    dimensions_step: int = 8


@dataclass(frozen=True, slots=True)
class Tokenized:
    """Token ids of N texts, one after another.

    `token_ids` is (T,) int32; text i has `token_ids[offsets[i]:offsets[i + 1]]`; `full_counts` is (N,) int64, the
    tokens before any cut.
    """

    token_ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    full_counts: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text, (N,) int64."""
        # np.diff takes ten times as long for a handful of texts.
        return self.offsets[1:] - self.offsets[:-1]

    @property
    def cut_rows(self) -> NDArray[np.int64]:
        """The texts that were cut, (n,) int64."""
        # Half the time of np.flatnonzero for a handful of texts.
        return (self.full_counts > self.lengths).nonzero()[0]

    def take(self, rows: NDArray[np.int64]) -> Tokenized:
        """Returns the texts of some rows, (n,) int64, in that order; a row may stand there several times."""
        offsets = np.zeros(rows.size + 1, np.int64)
        np.cumsum(self.lengths[rows], out=offsets[1:])
        pieces = [self.token_ids[self.offsets[row] : self.offsets[row + 1]] for row in rows.tolist()]
        return Tokenized(np.concatenate(pieces), offsets, self.full_counts[rows])

    @classmethod
    def join(cls, groups: Sequence[Tokenized]) -> Tokenized:
        """Returns the texts of several lists as one list; a single one is returned as it is."""
        if len(groups) == 1:
            return groups[0]
        lengths = np.concatenate([group.lengths for group in groups])
        offsets = np.zeros(lengths.size + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        token_ids = np.concatenate([group.token_ids for group in groups])
        return cls(token_ids, offsets, np.concatenate([group.full_counts for group in groups]))


@dataclass(frozen=True, slots=True)
class TokenPieces:
    """The tokens of one text, each with what it stands for; five lists of the same length.

    `starts` and `stops` are places in `text`, counted in bytes of UTF-8; those of special tokens mean nothing.
    """

    ids: list[int]
    pieces: list[str]
    special: list[bool]
    starts: list[int]
    stops: list[int]


@dataclass(frozen=True, slots=True)
class Pack:
    """Several texts of one call, as one request to Triton.

    `token_ids` is (T,) int32, `lengths` (n,) int32 and sums to T, `rows` (n,) int64 are the texts' places in the call.
    """

    token_ids: NDArray[np.int32]
    lengths: NDArray[np.int32]
    rows: NDArray[np.int64]

    @property
    def token_count(self) -> int:
        """T."""
        return int(self.token_ids.size)


class Encoder(Protocol):
    """What computes packs: `pipeline.triton`, behind `pipeline.joining`."""

    def encode(self, pack: Pack) -> Awaitable[NDArray[np.float32]]:
        """Returns (n, D) float32 pooled vectors; raises EncoderDied or a RequestError."""
        ...


@dataclass(frozen=True, slots=True)
class EncodedVectors:
    """Vectors as they go over the wire: row by row, little-endian; `scales` is (N,) float32 with INT8, else None."""

    data: bytes
    dimensions: int
    encoding: Encoding
    scales: NDArray[np.float32] | None = None

    @property
    def row_bytes(self) -> int:
        """Bytes of one vector."""
        return -(-self.dimensions * _BITS[self.encoding] // 8)


@dataclass(slots=True)
class Timings:
    """Where the time of one call went."""

    tokenize_ms: float = 0.0
    queue_ms: float = 0.0
    inference_ms: float = 0.0
