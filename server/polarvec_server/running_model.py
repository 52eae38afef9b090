"""One model of one worker: its encoder, its queue, its watch, joined."""

from __future__ import annotations

import time
from concurrent.futures import Executor
from pathlib import Path

import structlog

from polarvec_server.config import GPU_ENGINES, Settings
from polarvec_server.deployment import DeployedModel
from polarvec_server.edge.health import Health
from polarvec_server.edge.registry import ModelDescription, ServedModel
from polarvec_server.models.folder import read_folder
from polarvec_server.pipeline.admission import Admission
from polarvec_server.pipeline.canary import Canary, CanaryPack
from polarvec_server.pipeline.dispatch import Dispatcher, Encoded
from polarvec_server.pipeline.embedder import Embedder
from polarvec_server.pipeline.joining import BULK_TOKENS, JoiningEncoder
from polarvec_server.pipeline.limits import CallLimits
from polarvec_server.pipeline.repeats import RepeatCounts
from polarvec_server.pipeline.tokenizer import Tokenizer
from polarvec_server.pipeline.triton import TritonEncoder
from polarvec_server.pipeline.values import Priority
from polarvec_server.pipeline.vector_cache import VectorCache
from polarvec_server.telemetry import Metrics

_log = structlog.get_logger(__name__)
# The running batch, the one that waits, and one more: docs/decisions/0001.
_WINDOW_PACKS = 3
# An encoder that computes these within the dispatcher's time lays out so many at once.
_MAX_WINDOW_PACKS = 8
# A pack is about a pass of the GPU engine: two are under way, and two more are there when these end.
_GPU_WINDOW_PACKS = 4
# Joined requests that a worker has on their way: docs/decisions/0013. On a GPU one runs while the next one waits.
_JOINED_REQUESTS = 1
_GPU_JOINED_REQUESTS = 2


class RunningModel:
    """One model of one worker: its encoder, its queue, its watch."""

    def __init__(
        self,
        model: DeployedModel,
        target: str,
        settings: Settings,
        worker_count: int,
        model_count: int,
        executor: Executor,
        metrics: Metrics,
        health: Health,
    ) -> None:
        folder = read_folder(Path(model.folder))
        self.id = folder.id
        self._metrics, self._health, self._patience_s = metrics, health, settings.encoder_patience_s
        gpu = model.engine in GPU_ENGINES
        pack_tokens = settings.pack_tokens or (8192 if gpu else 1024)
        packs = _GPU_WINDOW_PACKS * model.instance_count if gpu else _WINDOW_PACKS
        window = settings.window_tokens or packs * pack_tokens
        max_window = 0 if settings.window_tokens or gpu else _MAX_WINDOW_PACKS * pack_tokens
        budget = settings.queue_tokens or ((4 << 20) if gpu else (256 << 10))
        self.encoder = TritonEncoder(target, model.triton_name, folder.dimensions)
        # One connection reaches one worker, whose share alone must keep the encoder busy: one pack runs, one waits.
        least = 0 if settings.window_tokens else 2 * pack_tokens
        share = max(1, least, window // worker_count)
        joined = _GPU_JOINED_REQUESTS * model.instance_count if gpu else _JOINED_REQUESTS
        encoders = {
            Priority.INTERACTIVE: JoiningEncoder(self.encoder, joined),
            Priority.BULK: JoiningEncoder(self.encoder, joined, BULK_TOKENS),
        }
        self.dispatcher = Dispatcher(encoders, share, max_window // worker_count)
        self.admission = Admission(max(1, budget // worker_count), self.dispatcher.tokens_per_s)
        self.canary = Canary(
            self.encoder,
            CanaryPack.read(Path(model.golden_path)),
            interval_s=settings.canary_interval_s,
            timeout_s=settings.canary_timeout_s,
            last_answer=lambda: self.dispatcher.last_answer,
            on_change=self._on_change,
            on_seconds=metrics.canary_seconds.labels(folder.id).observe,
        )
        self.dispatcher.when_encoder_dies(self.canary.alarm)
        self.cache = None
        if cache_bytes := settings.cache_bytes // (worker_count * model_count):
            self.cache = VectorCache(model.fingerprint, folder.dimensions, cache_bytes)
        self.embedder = Embedder(
            dimensions=folder.dimensions,
            model_prompts=folder.prompts,
            limits=CallLimits(
                settings.max_texts, settings.max_call_tokens, settings.max_request_bytes, settings.max_text_bytes
            ),
            pack_tokens=pack_tokens,
            tokenizer=Tokenizer(folder.tokenizer_file, folder.max_tokens),
            admission=self.admission,
            dispatcher=self.dispatcher,
            executor=executor,
            known=self.cache,
        )
        description = ModelDescription(
            id=folder.id,
            revision=folder.revision,
            architecture=folder.architecture,
            dimensions=folder.dimensions,
            trained_dimensions=folder.trained_dimensions,
            max_tokens=folder.max_tokens,
            pooling=folder.pooling,
            prompts=folder.prompts,
            precision=model.precision,
            engine=model.engine,
            fingerprint=model.fingerprint,
        )
        self.served = ServedModel(description, self.embedder)

    async def _on_change(self, up: bool) -> None:
        if up:
            _log.info("encoder is up", model=self.id)
        else:
            _log.warning("encoder is down", model=self.id)
        if self.cache:
            # What comes back may be another encoder, and what went may have been wrong before it was noticed.
            self.cache.clear()
        self.dispatcher.set_available(up)
        self._metrics.encoder_up.labels(self.id).set(int(up))
        await self._health.set_model(self.id, up)

    def sample(self) -> None:
        """Sets the gauges, counts on, and ends the patience with an encoder that stays away."""
        encoded, metrics = self.dispatcher.encoded, self._metrics
        counters = (metrics.encoded_packs, metrics.encoded_texts, metrics.encoded_tokens)
        for counter, count in zip(counters, (encoded.packs, encoded.texts, encoded.tokens), strict=True):
            counter.labels(self.id).inc(count)
        self.dispatcher.encoded = Encoded()
        self._sample_repeats()
        self._metrics.held_tokens.labels(self.id).set(self.admission.held_tokens)
        self._metrics.in_flight_tokens.labels(self.id).set(self.dispatcher.in_flight_tokens)
        if not self.canary.up and time.monotonic() - self.canary.down_since > self._patience_s:
            self.dispatcher.refuse_all()

    def _sample_repeats(self) -> None:
        counts, metrics = self.embedder.repeats.counts, self._metrics
        for source in ("call", "in_flight", "cache"):
            metrics.repeated_texts.labels(self.id, source).inc(getattr(counts, source))
        self.embedder.repeats.counts = RepeatCounts()
        if self.cache:
            metrics.cache_misses.labels(self.id).inc(counts.cache_misses)
            metrics.cache_evictions.labels(self.id).inc(self.cache.evictions)
            self.cache.evictions = 0
            metrics.cache_entries.labels(self.id).set(self.cache.entry_count)
            metrics.cache_bytes.labels(self.id).set(self.cache.byte_count)
