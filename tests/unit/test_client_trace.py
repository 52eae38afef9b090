"""The caller's trace goes with every call: what the caller says, or what OpenTelemetry knows."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import polarvec
import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from unit.scripted_server import RunningServer

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
RPCS = ("Embed", "EmbedStream", "GetModel", "ListModels", "Rank", "Tokenize")


def call_every_rpc(client: Any, **options: Any) -> None:
    client.embed_queries("a", **options)
    list(client.embed_stream(["a"], input_type="document", **options))
    client.rank("a", ["b"], **options)
    client.tokenize("a", input_type="raw", **options)
    client.models(**options)
    client.health(**options)


def test_the_callers_traceparent_arrives(client: Any, scripted: RunningServer) -> None:
    call_every_rpc(client, traceparent=TRACEPARENT)
    seen = {call.rpc: call.metadata.get("traceparent") for call in scripted.servicer.seen}
    assert seen == dict.fromkeys(RPCS, TRACEPARENT)


def test_without_a_trace_nothing_is_said(client: Any, scripted: RunningServer) -> None:
    call_every_rpc(client)
    assert not [call for call in scripted.servicer.seen if "traceparent" in call.metadata]


def test_opentelemetrys_current_span_arrives(client: Any, scripted: RunningServer) -> None:
    with TracerProvider().get_tracer("test").start_as_current_span("work") as span:
        call_every_rpc(client)
        trace_id = trace.format_trace_id(span.get_span_context().trace_id)
    for call in scripted.servicer.seen:
        assert call.metadata["traceparent"].split("-")[1] == trace_id, call.rpc


def test_the_callers_traceparent_wins(client: Any, scripted: RunningServer) -> None:
    with TracerProvider().get_tracer("test").start_as_current_span("work"):
        client.embed_queries("a", traceparent=TRACEPARENT)
    assert scripted.servicer.seen[-1].metadata["traceparent"] == TRACEPARENT


def test_opentelemetrys_baggage_arrives(client: Any, scripted: RunningServer) -> None:
    token = context.attach(baggage.set_baggage("who", "team-1"))
    try:
        client.embed_queries("a")
    finally:
        context.detach(token)
    assert scripted.servicer.seen[-1].metadata["baggage"] == "who=team-1"


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "x",
        TRACEPARENT.upper(),
        TRACEPARENT + "\n",
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        "ff" + TRACEPARENT[2:],
    ],
    ids=["empty", "word", "capitals", "newline", "no trace", "version ff"],
)
def test_traceparent_that_is_none_is_refused(client: Any, scripted: RunningServer, traceparent: str) -> None:
    with pytest.raises(polarvec.InvalidRequest, match="W3C"):
        client.embed_queries("a", traceparent=traceparent)
    assert scripted.servicer.seen == []


def test_calls_do_not_import_opentelemetry(scripted: RunningServer) -> None:
    code = f"import sys, polarvec; polarvec.Client({scripted.target!r}).embed_queries('a'); print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "polarvec" in result.stdout.split()
    assert not [name for name in result.stdout.split() if name.startswith("opentelemetry")]
