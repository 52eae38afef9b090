"""One gateway worker: builds every stage, joins them, serves until told to stop. The composition root."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import grpc
import structlog
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from polarvec_proto.v1 import embedding_pb2_grpc

from polarvec_server.config import GPU_ENGINES, Settings
from polarvec_server.deployment import DeployedModel
from polarvec_server.edge.health import SERVICE_NAME, Health
from polarvec_server.edge.interceptors import CallInterceptor
from polarvec_server.edge.operations import HttpServer, make_app
from polarvec_server.edge.registry import ModelDescription, ModelRegistry, ServedModel
from polarvec_server.edge.service import EmbeddingService
from polarvec_server.models.folder import read_folder
from polarvec_server.pipeline.admission import Admission
from polarvec_server.pipeline.canary import Canary, CanaryPack
from polarvec_server.pipeline.dispatch import Dispatcher
from polarvec_server.pipeline.embedder import CallLimits, Embedder
from polarvec_server.pipeline.tokenizer import Tokenizer
from polarvec_server.pipeline.triton import TritonEncoder
from polarvec_server.telemetry import Metrics

_log = structlog.get_logger(__name__)
# The running batch, the one that waits, and one more: docs/decisions/0001.
_WINDOW_PACKS = 3
# An encoder that computes these within the dispatcher's time lays out so many at once.
_MAX_WINDOW_PACKS = 8
# A pack is about a pass of the GPU engine: two are under way, and two more are there when these end.
_GPU_WINDOW_PACKS = 4
_TOKENIZER_THREADS = 2
_SAMPLE_INTERVAL_S = 0.5
_HEARTBEAT_S = 1.0
_POLL_S = 0.02
_LAST_PACKS_S = 5.0
_LAST_ANSWERS_S = 1.0


class _RunningModel:
    """One model of one worker: its encoder, its queue, its watch."""

    def __init__(
        self,
        model: DeployedModel,
        target: str,
        settings: Settings,
        worker_count: int,
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
        self.dispatcher = Dispatcher(self.encoder, share, max_window // worker_count)
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
        embedder = Embedder(
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
        self.served = ServedModel(description, embedder)

    async def _on_change(self, up: bool) -> None:
        if up:
            _log.info("encoder is up", model=self.id)
        else:
            _log.warning("encoder is down", model=self.id)
        self.dispatcher.set_available(up)
        self._metrics.encoder_up.labels(self.id).set(int(up))
        await self._health.set_model(self.id, up)

    def sample(self) -> None:
        """Sets the gauges, and ends the patience with an encoder that stays away."""
        self._metrics.held_tokens.labels(self.id).set(self.admission.held_tokens)
        self._metrics.in_flight_tokens.labels(self.id).set(self.dispatcher.in_flight_tokens)
        if not self.canary.up and time.monotonic() - self.canary.down_since > self._patience_s:
            self.dispatcher.refuse_all()


class GatewayWorker:
    """One process of the gateway."""

    def __init__(self, settings: Settings, models: Sequence[DeployedModel], target: str, worker_count: int) -> None:
        self._settings = settings
        self._metrics = Metrics()
        self._executor = ThreadPoolExecutor(_TOKENIZER_THREADS, thread_name_prefix="tokenizer")
        self._health = Health([read_folder(Path(model.folder)).id for model in models])
        self._models = [
            _RunningModel(model, target, settings, worker_count, self._executor, self._metrics, self._health)
            for model in models
        ]
        self._registry = ModelRegistry([model.served for model in self._models])
        self._interceptor = CallInterceptor(self._metrics, f"/{SERVICE_NAME}/")
        self._stop = asyncio.Event()

    async def run(self, ready_fd: int) -> None:
        """Serves until SIGTERM or SIGINT, then drains.

        Args:
            ready_fd: A byte is written here when every model has answered a canary and the ports are open.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        await self._health.publish()
        server = self._grpc_server()
        http = HttpServer(make_app(self._health), self._http_listener())
        await server.start()
        async with asyncio.TaskGroup() as group:
            background = [group.create_task(model.canary.run()) for model in self._models]
            background.append(group.create_task(self._sample()))
            http_task = group.create_task(http.run_until_stopped())
            background.append(group.create_task(self._announce(ready_fd)))
            await self._stop.wait()
            await self._drain(server)
            http.should_exit = True
            await http_task
            for task in background:
                task.cancel()
        for model in self._models:
            await model.encoder.close()
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _drain(self, server: grpc.aio.Server) -> None:
        await self._health.drain()
        await asyncio.sleep(self._settings.drain_delay_s)
        stopping = asyncio.ensure_future(server.stop(self._settings.drain_s))
        # Open health watches and reflection streams are no work: only our own calls are waited for.
        while self._interceptor.calls_in_progress and not stopping.done():
            await asyncio.wait({stopping}, timeout=_POLL_S)
        # The last answers may still be on their way out.
        await server.stop(_LAST_ANSWERS_S)
        await stopping
        # A closed connection would reach Triton as a cancellation of what is on its way.
        idle = [asyncio.ensure_future(model.dispatcher.wait_idle()) for model in self._models]
        _, late = await asyncio.wait(idle, timeout=_LAST_PACKS_S)
        for task in late:
            task.cancel()

    async def _announce(self, ready_fd: int) -> None:
        """Tells the parent that this worker is ready, and then every second that its event loop turns."""
        await self._health.wait_ready()
        os.set_blocking(ready_fd, False)
        while True:
            # A parent that does not read is no reason to stop serving.
            with contextlib.suppress(OSError):
                os.write(ready_fd, b"1")
            await asyncio.sleep(_HEARTBEAT_S)

    async def _sample(self) -> None:
        while True:
            due = time.monotonic() + _SAMPLE_INTERVAL_S
            await asyncio.sleep(_SAMPLE_INTERVAL_S)
            self._metrics.loop_lag_seconds.set(max(0.0, time.monotonic() - due))
            for model in self._models:
                model.sample()

    def _grpc_server(self) -> grpc.aio.Server:
        settings = self._settings
        server = grpc.aio.server(
            interceptors=[self._interceptor],
            # The outer limit; admission refuses long before, and says when to come back.
            maximum_concurrent_rpcs=4096,
            options=[
                ("grpc.so_reuseport", 1),
                ("grpc.max_receive_message_length", settings.max_request_bytes),
                ("grpc.max_send_message_length", 64 << 20),
                ("grpc.max_concurrent_streams", 1024),
                ("grpc.max_metadata_size", 8 << 10),
                ("grpc.absolute_max_metadata_size", 16 << 10),
                # Clients that ping every 10 s or less often are welcome.
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.keepalive_timeout_ms", 10_000),
                ("grpc.server_handshake_timeout_ms", 10_000),
                # Clients connect anew now and then and so find new replicas; calls in progress are not cut.
                ("grpc.max_connection_age_ms", 300_000),
            ],
        )
        service = EmbeddingService(self._registry, settings.default_deadline_s, settings.max_deadline_s)
        embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self._health.servicer, server)
        if settings.reflection:
            names = (SERVICE_NAME, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server)
        if settings.channelz:
            channelz.add_channelz_servicer(server)
        server.add_insecure_port(settings.grpc_address)
        return server

    def _http_listener(self) -> socket.socket:
        listener = socket.socket(socket.AF_INET6 if ":" in self._settings.host else socket.AF_INET)
        with contextlib.suppress(AttributeError):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self._settings.host, self._settings.http_port))
        return listener
