"""One gateway worker: builds every stage, joins them, serves until told to stop. The composition root."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from polarvec_proto.v1 import embedding_pb2_grpc
from starlette.routing import Route

from polarvec_server.config import Settings
from polarvec_server.deployment import DeployedModel
from polarvec_server.edge.accounting import Accounting
from polarvec_server.edge.auth import Authenticator
from polarvec_server.edge.deadlines import Deadlines
from polarvec_server.edge.health import SERVICE_NAME, Health
from polarvec_server.edge.http_frame import HttpFrame, HttpLimits
from polarvec_server.edge.http_server import HttpServer
from polarvec_server.edge.interceptors import CallInterceptor
from polarvec_server.edge.openai import openai_app
from polarvec_server.edge.operations import make_app
from polarvec_server.edge.registry import ModelRegistry
from polarvec_server.edge.service import EmbeddingService
from polarvec_server.edge.tei import SERVICE_NAMES as TEI_SERVICE_NAMES
from polarvec_server.edge.tei import add_tei_services
from polarvec_server.edge.tei_model import TeiModel
from polarvec_server.edge.tls import read_tls
from polarvec_server.models.folder import read_folder
from polarvec_server.running_model import RunningModel
from polarvec_server.telemetry import Metrics

_TOKENIZER_THREADS = 2
_SAMPLE_INTERVAL_S = 0.5
_HEARTBEAT_S = 1.0
_POLL_S = 0.02
_LAST_PACKS_S = 5.0
_LAST_ANSWERS_S = 1.0


class GatewayWorker:
    """One process of the gateway."""

    def __init__(self, settings: Settings, models: Sequence[DeployedModel], target: str, worker_count: int) -> None:
        self._settings = settings
        self._metrics = Metrics()
        self._executor = ThreadPoolExecutor(_TOKENIZER_THREADS, thread_name_prefix="tokenizer")
        self._health = Health([read_folder(Path(model.folder)).id for model in models])
        self._models = [
            RunningModel(
                model, target, settings, worker_count, len(models), self._executor, self._metrics, self._health
            )
            for model in models
        ]
        self._registry = ModelRegistry([model.served for model in self._models])
        self._accounting, self._authenticator = Accounting(self._metrics), Authenticator(settings.api_keys_file)
        self._tls = read_tls(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
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
        http, openai = self._operators_server(), self._openai_server()
        await server.start()
        async with asyncio.TaskGroup() as group:
            background = [group.create_task(model.canary.run()) for model in self._models]
            background.append(group.create_task(self._sample()))
            http_task = group.create_task(http.run_until_stopped())
            openai_task = group.create_task(openai.run_until_stopped()) if openai else None
            background.append(group.create_task(self._announce(ready_fd, [http, openai] if openai else [http])))
            await self._stop.wait()
            await self._health.drain()
            await asyncio.sleep(self._settings.drain_delay_s)
            if openai:
                openai.should_exit = True
            await self._drain(server, openai_task)
            http.should_exit = True
            await http_task
            for task in background:
                task.cancel()
        for model in self._models:
            await model.encoder.close()
        self._accounting.tally.flush()
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _drain(self, server: grpc.aio.Server, openai_task: asyncio.Task[None] | None) -> None:
        stopping = asyncio.ensure_future(server.stop(self._settings.drain_s))
        # Open health watches and reflection streams are no work: only our own calls are waited for.
        while self._accounting.calls_in_progress and not stopping.done():
            await asyncio.wait({stopping}, timeout=_POLL_S)
        # The last answers may still be on their way out.
        await server.stop(_LAST_ANSWERS_S)
        await stopping
        if openai_task:
            await openai_task
        # A closed connection would reach Triton as a cancellation of what is on its way.
        idle = [asyncio.ensure_future(model.dispatcher.wait_idle()) for model in self._models]
        _, late = await asyncio.wait(idle, timeout=_LAST_PACKS_S)
        for task in late:
            task.cancel()

    async def _announce(self, ready_fd: int, doors: Sequence[HttpServer]) -> None:
        """Tells the parent that this worker is ready, and then every second that its event loop turns."""
        await self._health.wait_ready()
        # What was loaded stays; the collector need not walk through it again and again.
        gc.collect()
        gc.freeze()
        for door in doors:
            await door.listening.wait()
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
            self._accounting.tally.flush()
            self._authenticator.refresh()
            for model in self._models:
                model.sample()

    def _operators_server(self) -> HttpServer:
        settings = self._settings
        return HttpServer(
            make_app(self._health, self._accounting.tally), settings.host, settings.http_port, drain_s=_LAST_ANSWERS_S
        )

    def _openai_server(self) -> HttpServer | None:
        settings = self._settings
        if not settings.openai_port:
            return None
        limits = HttpLimits(
            settings.default_deadline_s,
            settings.max_deadline_s,
            settings.max_request_bytes,
            # Every token of a call as an id, or every text, and as much again.
            max_json_values=2 * (settings.max_call_tokens + settings.max_texts),
        )
        frame = HttpFrame(self._accounting, self._authenticator, limits)
        more: list[Route] = []
        if settings.playground:
            from polarvec_server.edge.load_view import LoadView
            from polarvec_server.edge.playground import playground_routes

            more = playground_routes(self._registry, frame, LoadView(settings.triton_metrics_port).read)
        app = openai_app(self._registry, frame, more)
        return HttpServer(app, settings.host, settings.openai_port, tls=self._tls, drain_s=settings.drain_s)

    def _grpc_server(self) -> grpc.aio.Server:
        settings = self._settings
        server = grpc.aio.server(
            interceptors=[
                CallInterceptor(self._accounting, self._authenticator, ("polarvec.v1", "tei.v1", "grpc.channelz.v1"))
            ],
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
        deadlines = Deadlines(settings.default_deadline_s, settings.max_deadline_s)
        service = EmbeddingService(self._registry, deadlines)
        embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
        tei_model = TeiModel(self._registry, deadlines, default_prompt=settings.tei_prompt_name)
        add_tei_services(server, tei_model, _TOKENIZER_THREADS)
        health_pb2_grpc.add_HealthServicer_to_server(self._health.servicer, server)
        if settings.reflection:
            health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
            names = (SERVICE_NAME, *TEI_SERVICE_NAMES, health_name, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server)
        if settings.channelz:
            channelz.add_channelz_servicer(server)
        if self._tls:
            server.add_secure_port(settings.grpc_address, self._tls.grpc_credentials())
        else:
            server.add_insecure_port(settings.grpc_address)
        return server
