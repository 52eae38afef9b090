"""Calls of tei.v1 that several tests make, and what their errors tell."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
import tei_wire as wire
from google.rpc import error_details_pb2, status_pb2

TEXT = "데비안은 자유로운 운영 체제입니다. Debian is free, gratuité. 🐧"
LONG = " ".join(f"단어{number}" for number in range(600))


def embed(channel, text=TEXT, **fields):
    """The vector of one text."""
    request = wire.make("EmbedRequest", inputs=text, **fields)
    return np.array(wire.call(channel, "Embed/Embed")(request, timeout=30).embeddings, np.float32)


def refusal(channel, method, **fields) -> tuple[grpc.StatusCode, str, str]:
    """Code, reason and field of the error that a call ends with."""
    with pytest.raises(grpc.RpcError) as caught:
        wire.call(channel, method)(wire.make(wire.request_class(method), **fields), timeout=30)
    return told(caught.value)


def told(error) -> tuple[grpc.StatusCode, str, str]:
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info, violation = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    named = len(status.details) > 1 and status.details[1].Unpack(violation)
    return error.code(), info.reason, violation.field_violations[0].field if named else ""
