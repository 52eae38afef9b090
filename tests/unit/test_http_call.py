"""The JSON of HTTP bodies: how many values it may hold."""

import json

import pytest
from polarvec_server.edge.http_call import HttpCall
from polarvec_server.edge.record import CallRecord
from polarvec_server.errors import TooManyTexts

LIMIT = 100
FITTING = {
    "numbers": {"input": list(range(LIMIT - 3))},
    "texts": {"input": ["a"] * (LIMIT // 2 - 3)},
    "marks inside of a text": {"input": '[{,"\\' * LIMIT},
    "marks behind a quoted quote": {"input": ['"' + "," * LIMIT, "\\"]},
}
TOO_MANY = {
    "lists": b"[]," * LIMIT,
    "objects": b"{}," * LIMIT,
    "numbers": b"1," * LIMIT,
    "behind a backslash": b'"\\\\",' + b"1," * LIMIT,
    "behind a quote": b'"\\"",' + b"[]," * LIMIT,
}


def read(body):
    return HttpCall(None, body, 0.0, CallRecord("id"), LIMIT).json()


@pytest.mark.parametrize("value", FITTING.values(), ids=FITTING)
def test_what_fits_is_read(value):
    assert read(json.dumps(value).encode()) == value


@pytest.mark.parametrize("values", TOO_MANY.values(), ids=TOO_MANY)
def test_more_values_than_a_call_needs_are_refused(values):
    with pytest.raises(TooManyTexts) as caught:
        read(b'{"x":[' + values + b"1]}")
    assert caught.value.metadata["value_limit"] == str(LIMIT)
