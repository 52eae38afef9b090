"""tei.v1 as text-embeddings-inference puts it on the wire: descriptors and calls made from this table alone.

Nothing here reads our proto/tei/ or the code generated from it, and the descriptors lie in a pool of their own.
"""

from __future__ import annotations

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_TYPES = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "string": _TYPES.TYPE_STRING,
    "bool": _TYPES.TYPE_BOOL,
    "u32": _TYPES.TYPE_UINT32,
    "u64": _TYPES.TYPE_UINT64,
    "float": _TYPES.TYPE_FLOAT,
}
ENUMS = {
    "ModelType": ("MODEL_TYPE_EMBEDDING", "MODEL_TYPE_CLASSIFIER", "MODEL_TYPE_RERANKER"),
    "TruncationDirection": ("TRUNCATION_DIRECTION_RIGHT", "TRUNCATION_DIRECTION_LEFT"),
}
_PROMPTED = "1 inputs string; 2 truncate bool; 3 truncation_direction TruncationDirection; 4 prompt_name string?"
# Number, name, type of each field; ? is proto3's optional, [] repeated.
MESSAGES = {
    "InfoRequest": "",
    "InfoResponse": (
        "1 version string; 2 sha string?; 3 docker_label string?; 4 model_id string; 5 model_sha string?; "
        "6 model_dtype string; 7 model_type ModelType; 8 max_concurrent_requests u32; 9 max_input_length u32; "
        "10 max_batch_tokens u32; 11 max_batch_requests u32?; 12 max_client_batch_size u32; "
        "13 tokenization_workers u32"
    ),
    "Metadata": (
        "1 compute_chars u32; 2 compute_tokens u32; 3 total_time_ns u64; 4 tokenization_time_ns u64; "
        "5 queue_time_ns u64; 6 inference_time_ns u64"
    ),
    "EmbedRequest": (
        "1 inputs string; 2 truncate bool; 3 normalize bool?; 4 truncation_direction TruncationDirection; "
        "5 prompt_name string?; 6 dimensions u32?"
    ),
    "EmbedResponse": "1 embeddings float[]; 2 metadata Metadata",
    "EmbedSparseRequest": _PROMPTED,
    "SparseValue": "1 index u32; 2 value float",
    "EmbedSparseResponse": "1 sparse_embeddings SparseValue[]; 2 metadata Metadata",
    "EmbedAllRequest": _PROMPTED,
    "TokenEmbedding": "1 embeddings float[]",
    "EmbedAllResponse": "1 token_embeddings TokenEmbedding[]; 2 metadata Metadata",
    "PredictRequest": (
        "1 inputs string; 2 truncate bool; 3 raw_scores bool; 4 truncation_direction TruncationDirection"
    ),
    "PredictPairRequest": (
        "1 inputs string[]; 2 truncate bool; 3 raw_scores bool; 4 truncation_direction TruncationDirection"
    ),
    "Prediction": "1 score float; 2 label string",
    "PredictResponse": "1 predictions Prediction[]; 2 metadata Metadata",
    "RerankRequest": (
        "1 query string; 2 texts string[]; 3 truncate bool; 4 raw_scores bool; 5 return_text bool; "
        "6 truncation_direction TruncationDirection"
    ),
    "RerankStreamRequest": (
        "1 query string; 2 text string; 3 truncate bool; 4 raw_scores bool; 5 return_text bool; "
        "6 truncation_direction TruncationDirection"
    ),
    "Rank": "1 index u32; 2 text string?; 3 score float",
    "RerankResponse": "1 ranks Rank[]; 2 metadata Metadata",
    "EncodeRequest": "1 inputs string; 2 add_special_tokens bool; 3 prompt_name string?",
    "SimpleToken": "1 id u32; 2 text string; 3 special bool; 4 start u32?; 5 stop u32?",
    "EncodeResponse": "1 tokens SimpleToken[]",
    "DecodeRequest": "1 ids u32[]; 2 skip_special_tokens bool",
    "DecodeResponse": "1 text string",
}
# Service and method: request, answer.
METHODS = {
    "Info/Info": ("InfoRequest", "InfoResponse"),
    "Embed/Embed": ("EmbedRequest", "EmbedResponse"),
    "Embed/EmbedStream": ("stream EmbedRequest", "stream EmbedResponse"),
    "Embed/EmbedSparse": ("EmbedSparseRequest", "EmbedSparseResponse"),
    "Embed/EmbedSparseStream": ("stream EmbedSparseRequest", "stream EmbedSparseResponse"),
    "Embed/EmbedAll": ("EmbedAllRequest", "EmbedAllResponse"),
    "Embed/EmbedAllStream": ("stream EmbedAllRequest", "stream EmbedAllResponse"),
    "Predict/Predict": ("PredictRequest", "PredictResponse"),
    "Predict/PredictPair": ("PredictPairRequest", "PredictResponse"),
    "Predict/PredictStream": ("stream PredictRequest", "stream PredictResponse"),
    "Predict/PredictPairStream": ("stream PredictPairRequest", "stream PredictResponse"),
    "Rerank/Rerank": ("RerankRequest", "RerankResponse"),
    "Rerank/RerankStream": ("stream RerankStreamRequest", "RerankResponse"),
    "Tokenize/Tokenize": ("EncodeRequest", "EncodeResponse"),
    "Tokenize/TokenizeStream": ("stream EncodeRequest", "stream EncodeResponse"),
    "Tokenize/Decode": ("DecodeRequest", "DecodeResponse"),
    "Tokenize/DecodeStream": ("stream DecodeRequest", "stream DecodeResponse"),
}


def fields_of(message: str) -> list[tuple[int, str, str]]:
    """Number, name and type of each field of a message."""
    rows = [row.split() for row in MESSAGES[message].split("; ") if row]
    return [(int(number), name, kind) for number, name, kind in rows]


def _add_message(file: descriptor_pb2.FileDescriptorProto, name: str) -> None:
    message = file.message_type.add(name=name)
    for number, field_name, kind in fields_of(name):
        field = message.field.add(name=field_name, number=number, label=_TYPES.LABEL_OPTIONAL)
        if kind.endswith("[]"):
            field.label = _TYPES.LABEL_REPEATED
        elif kind.endswith("?"):
            field.proto3_optional = True
            field.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{field_name}")
        base = kind.rstrip("?[]")
        if base in _SCALARS:
            field.type = _SCALARS[base]
        else:
            field.type = _TYPES.TYPE_ENUM if base in ENUMS else _TYPES.TYPE_MESSAGE
            field.type_name = f".tei.v1.{base}"


def _build() -> dict[str, type]:
    file = descriptor_pb2.FileDescriptorProto(name="wire.proto", package="tei.v1", syntax="proto3")
    for name, values in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    for name in MESSAGES:
        _add_message(file, name)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tei.v1.{name}")) for name in MESSAGES}


_CLASSES = _build()


def make(message: str, **fields):
    """A message of tei.v1."""
    return _CLASSES[message](**fields)


def call(channel: grpc.Channel, method: str):
    """The callable of a method such as Embed/Embed."""
    request, answer = METHODS[method]
    kind = f"{'stream' if 'stream' in request else 'unary'}_{'stream' if 'stream' in answer else 'unary'}"
    return getattr(channel, kind)(
        f"/tei.v1.{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=_CLASSES[answer.split()[-1]].FromString,
    )


def request_class(method: str) -> str:
    """Name of the message that a method takes."""
    return METHODS[method][0].split()[-1]
