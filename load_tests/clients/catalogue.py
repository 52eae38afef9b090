"""The rows of the comparison: which client, used in which way."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One client, used in one way."""

    name: str
    script: str
    way: str

    @property
    def key(self) -> str:
        """Its name on the command line: polarvec-stream."""
        return f"{self.script.removeprefix('run_').removesuffix('.py')}-{self.way}"

    @property
    def ours(self) -> bool:
        """Whether it is the SDK."""
        return self.script == "run_polarvec.py"


def rows() -> tuple[Row, ...]:
    """Returns all rows, the SDK's first."""
    return (
        Row("SDK `embed_documents`", "run_polarvec.py", "documents"),
        Row("SDK `AsyncClient.embed_documents`", "run_polarvec.py", "async"),
        Row("SDK `embed_stream`", "run_polarvec.py", "stream"),
        Row("`openai`, one call at a time", "run_openai.py", "sequential"),
        Row("`openai`, 4 threads", "run_openai.py", "threads"),
        Row("`AsyncOpenAI`, 4 calls at once", "run_openai.py", "async"),
        Row("`tritonclient`, one call at a time", "run_triton.py", "sequential"),
        Row("`tritonclient`, 4 threads", "run_triton.py", "threads"),
    )
