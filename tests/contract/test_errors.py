"""Every domain error has its reason in the proto, its row in docs/api.md, and details that clients can read."""

import inspect
import re
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from polarvec_proto.v1 import embedding_pb2 as pb
from polarvec_server import errors

ROOT = Path(__file__).parents[2]
CLASSES = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, errors.RequestError) and cls is not errors.RequestError
]
EXAMPLES = [
    errors.MalformedMessage(),
    errors.NoTexts("texts"),
    errors.TooManyTexts("text", 5, 4),
    errors.EmptyText("texts", 3),
    errors.TextTooLong("texts", 3, "token", 600, 512),
    errors.UnknownInputType(9),
    errors.UnknownPrompt(["query"]),
    errors.UnsupportedDimensions(7, 384),
    errors.UnsupportedEncoding(9),
    errors.InvalidText("prompt_text", "is too long"),
    errors.InvalidField("priority", "must be known"),
    errors.UnknownModel(["e5-small"]),
    errors.UnsupportedMethod(),
    errors.Unauthenticated(),
    errors.PermissionDenied(),
    errors.Overloaded(0.25),
    errors.QuotaExceeded(2.5),
    errors.EncoderUnavailable(),
    errors.DeadlineExceeded(),
    errors.NonFinite(),
    errors.InternalError(),
]


def test_every_error_has_an_example_here():
    assert {type(example) for example in EXAMPLES} == set(CLASSES)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_reason_stands_in_the_proto_and_the_docs(cls):
    assert f"ERROR_REASON_{cls.reason}" in pb.ErrorReason.keys()
    row = re.search(
        rf"^\|[^|]*`{cls.reason}`[^|]*\| *`?(\w+)`? *\|", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE
    )
    assert row, f"docs/api.md has no row for {cls.reason}"
    assert row[1] == cls.code.name


def test_the_proto_names_no_reason_that_is_never_sent():
    assert {name.removeprefix("ERROR_REASON_") for name in pb.ErrorReason.keys()} - {"UNSPECIFIED"} == {
        cls.reason for cls in CLASSES
    }


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: error.reason)
def test_details_carry_reason_field_and_delay(error):
    status = errors.to_status(error)
    assert status.code == error.code.value[0]
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == (error.reason, "polarvec")
    kinds = {detail.TypeName() for detail in status.details}
    assert ("google.rpc.BadRequest" in kinds) == bool(error.field)
    assert ("google.rpc.RetryInfo" in kinds) == (error.retry_after_s is not None)
    needs_delay = error.code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
    assert needs_delay == (error.retry_after_s is not None)
    if error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        assert status.details[-1].Unpack(retry)
        assert retry.retry_delay.ToMilliseconds() == pytest.approx(error.retry_after_s * 1000, abs=1)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: error.reason)
def test_metadata_keys_are_those_that_the_proto_lists(error):
    text = (ROOT / "proto" / "polarvec" / "v1" / "embedding.proto").read_text()
    comment = re.search(rf"((?:  //.*\n)+)  ERROR_REASON_{error.reason} =", text)
    assert comment
    for key in error.metadata:
        assert key in comment[1].replace("\n  //", ""), f"{key} is not in the comment of {error.reason}"
