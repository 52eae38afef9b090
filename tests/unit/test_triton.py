"""How Triton's answers are read: a real gRPC server with scripted answers stands where faults have to be injected."""

import struct

import grpc
import numpy as np
import pytest
from polarvec_server.errors import EncoderDied, InternalError, NonFinite
from polarvec_server.pipeline.triton import INPUTS, OUTPUTS, TritonEncoder
from polarvec_server.pipeline.values import Pack
from tritonclient.grpc import service_pb2, service_pb2_grpc

PACK = Pack(np.arange(5, dtype=np.int32), np.array([2, 3], np.int32), np.arange(2))
D = 4


class Scripted(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers as Triton does, but for what a test changes."""

    def __init__(self):
        self.requests = []
        self.change = lambda vectors, tag: (vectors, tag)
        self.failure = None

    async def ModelInfer(self, request, context):
        self.requests.append(request)
        if self.failure:
            await context.abort(*self.failure)
        vectors, tag = np.ones((1, 2, D), "<f4"), request.raw_input_contents[2]
        vectors, tag = self.change(vectors, tag)
        response = service_pb2.ModelInferResponse(model_name=request.model_name)
        for name, data in (("embeddings", vectors.tobytes()), ("tag", tag)):
            response.outputs.add(name=name, datatype=OUTPUTS[name])
            response.raw_output_contents.append(data)
        return response


@pytest.fixture
async def triton(tmp_path):
    server, scripted = grpc.aio.server(), Scripted()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(scripted, server)
    target = f"unix:{tmp_path}/grpc:0"
    server.add_insecure_port(target)
    await server.start()
    scripted.encoder = TritonEncoder(target, "encoder_0", D)
    yield scripted
    await scripted.encoder.close()
    await server.stop(0)


async def test_a_pack_travels_as_three_raw_tensors(triton):
    vectors = await triton.encoder.encode(PACK)
    np.testing.assert_array_equal(vectors, np.ones((2, D)))
    (request,) = triton.requests
    assert [(i.name, i.datatype, list(i.shape)) for i in request.inputs] == [
        ("token_ids", "INT32", [1, 5]),
        ("lengths", "INT32", [1, 2]),
        ("tag", "INT64", [1, 1]),
    ]
    assert [i.name for i in request.inputs] == list(INPUTS)
    assert np.frombuffer(request.raw_input_contents[0], "<i4").tolist() == [0, 1, 2, 3, 4]
    # With a priority or a timeout Triton's batcher would sleep at times: docs/decisions/0012.
    assert not request.parameters


async def test_tags_never_repeat(triton):
    for _ in range(5):
        await triton.encoder.encode(PACK)
    assert len({request.raw_input_contents[2] for request in triton.requests}) == 5


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda vectors, tag: (vectors, struct.pack("<q", struct.unpack("<q", tag)[0] + 1)), InternalError),
        (lambda vectors, tag: (vectors[:, :1], tag), InternalError),
        (lambda vectors, tag: (vectors[:, :, :3], tag), InternalError),
        (lambda vectors, tag: (np.full_like(vectors, np.nan), tag), NonFinite),
        (lambda vectors, tag: (np.array([[[1, 1, 1, 1], [1, np.inf, 1, 1]]], "<f4"), tag), NonFinite),
    ],
    ids=["another tag", "a vector too few", "a dimension too few", "NaN", "infinity"],
)
async def test_a_wrong_answer_becomes_an_error(triton, change, error):
    triton.change = change
    with pytest.raises(error):
        await triton.encoder.encode(PACK)


# The texts that Triton 2.51 sends.
@pytest.mark.parametrize(
    ("code", "text", "error"),
    [
        ("UNAVAILABLE", "Server is stopping, can no longer serve requests", EncoderDied),
        ("INTERNAL", "Stub process 'encoder_0_0' is not healthy.", EncoderDied),
        ("INTERNAL", "Failed to increase the shared memory pool size for key 'x'", InternalError),
        ("INVALID_ARGUMENT", "unexpected shape for input 'lengths'", InternalError),
    ],
)
async def test_failures_are_told_apart_by_their_text(triton, code, text, error):
    triton.failure = (grpc.StatusCode[code], text)
    with pytest.raises(error) as caught:
        await triton.encoder.encode(PACK)
    assert text not in str(caught.value)


async def test_nobody_there_means_that_the_encoder_is_away(tmp_path):
    encoder = TritonEncoder(f"unix:{tmp_path}/none:0", "encoder_0", D)
    with pytest.raises(EncoderDied):
        await encoder.encode(PACK)
    assert not await encoder.live(1.0)
    await encoder.close()
