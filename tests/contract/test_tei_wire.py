"""Our proto/tei/ is, number for number, what tests/tei_wire.py says of text-embeddings-inference."""

import re
from pathlib import Path

import pytest
import tei_wire as wire
from google.protobuf.descriptor import FieldDescriptor
from polarvec_server.tei_proto import tei_pb2 as tei

FILE = tei.DESCRIPTOR
API = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
NAMES = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_UINT32: "u32",
    FieldDescriptor.TYPE_UINT64: "u64",
    FieldDescriptor.TYPE_FLOAT: "float",
}


def kind_of(field: FieldDescriptor) -> str:
    other = field.message_type or field.enum_type
    base = other.name if other else NAMES[field.type]
    if field.label == FieldDescriptor.LABEL_REPEATED:
        return f"{base}[]"
    return f"{base}?" if field.has_presence and not field.message_type else base


def test_the_package_has_these_messages_enums_and_methods_and_no_other():
    assert FILE.package == "tei.v1"
    assert set(FILE.message_types_by_name) == set(wire.MESSAGES)
    assert set(FILE.enum_types_by_name) == set(wire.ENUMS)
    services = FILE.services_by_name.values()
    methods = {f"{service.name}/{method.name}" for service in services for method in service.methods}
    assert methods == set(wire.METHODS)


@pytest.mark.parametrize("name", wire.MESSAGES)
def test_fields_have_their_numbers_names_and_types(name):
    ours = [(field.number, field.name, kind_of(field)) for field in FILE.message_types_by_name[name].fields]
    assert sorted(ours) == sorted(wire.fields_of(name))


@pytest.mark.parametrize("name", wire.ENUMS)
def test_enums_have_their_values(name):
    assert [value.name for value in FILE.enum_types_by_name[name].values] == list(wire.ENUMS[name])
    assert [value.number for value in FILE.enum_types_by_name[name].values] == list(range(len(wire.ENUMS[name])))


@pytest.mark.parametrize("name", wire.METHODS)
def test_methods_have_their_messages_and_streams(name):
    service, _, method_name = name.partition("/")
    method = FILE.services_by_name[service].methods_by_name[method_name]
    request = f"{'stream ' if method.client_streaming else ''}{method.input_type.name}"
    answer = f"{'stream ' if method.server_streaming else ''}{method.output_type.name}"
    assert (request, answer) == wire.METHODS[name]


def test_every_method_and_every_field_of_what_is_served_is_documented():
    section = re.search(r"(?ms)^## tei\.v1\n(.*?)(?=^## )", API)
    assert section
    said = section[1]
    served = {name for name in wire.METHODS if f"`{name}`" in said}
    unserved = ("Predict", "Rerank", "Embed/EmbedSparse", "Embed/EmbedAll")
    refused = {name for name in wire.METHODS if name.startswith(unserved)}
    assert all(f"`{name}`" in said for name in unserved)
    assert served | refused == set(wire.METHODS)
    for message in ("EmbedRequest", "EmbedResponse", "Metadata"):
        for _, field, _ in wire.fields_of(message):
            assert f"`{field}`" in said, f"{message}.{field}"
