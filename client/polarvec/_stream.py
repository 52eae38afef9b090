"""The book of one bulk job: what is to be sent, what is under way and what may be handed out; does no I/O itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from polarvec_proto.v1 import embedding_pb2 as pb

from polarvec import _codec
from polarvec._batching import Batch, Batcher, utf8_byte_count
from polarvec._errors import (
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    PolarvecError,
    ServerError,
    Unavailable,
    from_status,
)
from polarvec._outbox import Item, Outbox
from polarvec._requests import check_text, embed_request
from polarvec._results import changed_fingerprint, token_counts
from polarvec._retry import item_delay_s
from polarvec._types import StreamItem

# Every call has a deadline; a job that takes longer goes on in a new call.
CALL_TIMEOUT_S = 3600.0
# In UTF-8.
_MAX_CHARACTER_BYTES = 4
# What the server gets to end a call whose answers have all come.
FINISH_TIMEOUT_S = 1.0


def ended_early() -> Unavailable:
    """The server ended a call that the client had not finished."""
    return Unavailable("The server ended the stream before it had answered everything; try again.")


class StreamLedger:
    """Numbers the items, settles the answers and decides what is sent again.

    A text that the server names as wrong gets its error and the rest of its item is sent again. An item that meets a
    restarting encoder is sent again after the server's delay, up to 4 times, and one that meets a full server for as
    long as the timeout. When a whole call breaks, everything under way in it goes into other calls, until all servers
    have been silent for too long.
    """

    def __init__(
        self,
        template: pb.EmbedRequest,
        batcher: Batcher,
        *,
        max_text_bytes: int,
        window_text_count: int,
        ordered: bool,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts empty.

        Args:
            template: The request without its texts.
            batcher: Cuts the input into items.
            max_text_bytes: A longer text is refused here, because one message over the limit breaks the whole call.
            window_text_count: Texts that may be in the book at once: the bound of its memory.
            ordered: Whether texts are handed out in the order of the input.
            timeout_s: Seconds of silence that end the job; no item waits longer for room on the server.
            clock: Seconds that never go back.
        """
        self._template = template
        self._batcher = batcher
        self._max_text_bytes = max_text_bytes
        self._window_text_count = window_text_count
        self._ordered = ordered
        self._timeout_s = timeout_s
        self._clock = clock
        self._outbox = Outbox(clock)
        self._settled: dict[int, StreamItem] = {}
        self._added_count = 0
        self._yielded_count = 0
        self._input_ended = False
        self._failure: PolarvecError | None = None
        self._silent_s = 0.0
        self._fingerprint = ""

    @property
    def has_room(self) -> bool:
        """Whether more input should be read."""
        return not self._input_ended and self._added_count - self._yielded_count < self._window_text_count

    @property
    def done(self) -> bool:
        """Whether everything has been handed out."""
        return self._input_ended and self._yielded_count == self._added_count

    def add(self, text: object) -> bool:
        """Takes the next text of the input; says whether there is something to send or to hand out now.

        Raises:
            TypeError: It is no str.
        """
        index = self._added_count
        checked = check_text(text, index)
        self._added_count += 1
        try:
            if len(checked) * _MAX_CHARACTER_BYTES > self._max_text_bytes:  # Encoding every text to count costs more.
                self._check_bytes(utf8_byte_count(checked, index), index)
            batch = self._batcher.add(index, checked)
        except InvalidRequest as error:
            self._settled[index] = StreamItem(index, error=error)
            return True
        self._queue(batch)
        return batch is not None

    def end_input(self) -> None:
        """There is no more input."""
        self._input_ended = True
        self._queue(self._batcher.flush())

    def outgoing(self, lanes: Sequence[int]) -> Iterator[tuple[int, pb.EmbedStreamRequest]]:
        """What is to be sent now, each item to the lane that has the least under way.

        Args:
            lanes: The endpoints that may be used, the first one first among equals.
        """
        for lane, number, item in self._outbox.take(lanes):
            yield (
                lane,
                pb.EmbedStreamRequest(item_number=number, request=embed_request(self._template, item.batch.texts)),
            )

    def wait_s(self) -> float:
        """Seconds to wait for the next answer: none where there is something else to do, at most the timeout."""
        ready = self._yielded_count in self._settled if self._ordered else self._settled
        if self.has_room or ready or not self._outbox:
            return 0.0
        return max(0.0, min(self._timeout_s, self._outbox.next_due_s() - self._clock()))

    def waited(self, seconds: float, lanes: Sequence[int]) -> Sequence[int]:
        """Books a wait that brought no answer. Only waits count, not the time that the caller takes between texts.

        Args:
            seconds: How long it was.
            lanes: The endpoints that may be used.

        Returns:
            Lanes to give up, whose items others take: their servers hang.

        Raises:
            PolarvecError: All servers have been silent for too long, or no call to them has held.
        """
        if not self._outbox.has_sent and self._failure is None:
            return ()
        self._silent_s += seconds
        if self._silent_s < self._timeout_s:
            return ()
        silent = self._outbox.busy_lanes()
        if self._failure is not None or set(lanes) <= set(silent):
            raise self._failure or self._silence()
        for lane in silent:
            self.call_failed(lane, self._silence())
        self._silent_s = 0.0
        return silent

    def settle(self, answer: pb.EmbedStreamResponse) -> None:
        """Books one answer.

        Raises:
            ServerError: It cannot be read, belongs to nothing, or comes from another embedding space.
        """
        item = self._outbox.answered(answer.item_number)
        if item is None:
            raise ServerError(f"The server answered item {answer.item_number}, which is not under way; report this.")
        self._failure, self._silent_s = None, 0.0
        if answer.WhichOneof("result") == "response":
            self._accept(item.batch, answer.response)
        else:
            self._reject(item, from_status(answer.error))

    def call_failed(self, lane: int, error: PolarvecError) -> None:
        """Takes back everything under way in a call that broke.

        Raises:
            PolarvecError: `error`, where a new call would not help.
        """
        full = isinstance(error, Overloaded) and error.retry_after_s is not None
        if not full and not isinstance(error, (Unavailable, DeadlineExceeded)):
            raise error
        self._failure = error
        self._outbox.take_back(lane)

    def ready(self) -> Iterator[StreamItem]:
        """What may be handed out now."""
        while self._settled:
            index = self._yielded_count if self._ordered else next(iter(self._settled))
            item = self._settled.pop(index, None)
            if item is None:
                return
            self._yielded_count += 1
            yield item

    def _queue(self, batch: Batch | None) -> None:
        if batch is not None and batch.texts:
            self._outbox.put(batch)

    def _silence(self) -> DeadlineExceeded:
        limit_s = self._timeout_s
        return DeadlineExceeded(f"No answer came for {limit_s:g} s; raise timeout_s or make batch_size smaller.")

    def _time_left_s(self, item: Item) -> float:
        return item.first_s + self._timeout_s - self._clock()

    def _check_bytes(self, byte_count: int, index: int) -> None:
        if 0 < self._max_text_bytes < byte_count:
            limit = self._max_text_bytes
            raise InvalidRequest(
                f"texts[{index}] has {byte_count} bytes, more than the {limit} that a text may have; split it.",
                reason="TEXT_TOO_LONG",
                field=f"texts[{index}]",
                metadata={"index": str(index), "byte_count": str(byte_count), "byte_limit": str(limit)},
            )

    def _accept(self, batch: Batch, response: pb.EmbedResponse) -> None:
        embeddings = _codec.decode(response, len(batch.texts))
        if self._fingerprint and response.fingerprint != self._fingerprint:
            raise changed_fingerprint()
        self._fingerprint = response.fingerprint
        counts = token_counts(response, len(batch.texts))
        for position, (index, token_count) in enumerate(zip(batch.indexes, counts, strict=True)):
            self._settled[index] = StreamItem(
                index,
                embedding=_codec.row(embeddings, position),
                token_count=token_count,
                fingerprint=response.fingerprint,
            )

    def _reject(self, item: Item, error: PolarvecError) -> None:
        batch, position = item.batch, error.text_index
        if isinstance(error, InvalidRequest) and position is not None and position < len(batch.texts):
            index = batch.indexes[position]
            self._settled[index] = StreamItem(index, error=batch.in_callers_terms(error))
            self._queue(batch.without(position))
        elif batch.can_halve_after(error):
            for half in batch.halves():
                self._queue(half)
        elif (delay_s := item_delay_s(error, item.attempt, self._time_left_s(item))) is not None:
            self._outbox.put_again(item, delay_s)
        else:
            for index in batch.indexes:
                self._settled[index] = StreamItem(index, error=error)
