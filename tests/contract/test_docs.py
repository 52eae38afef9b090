"""What the documents say is what the code does: tables are compared, links followed, examples run."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import get_args

import grpc
import numpy as np
import pytest
import typer
from polarvec_encoder import choice, golden
from polarvec_proto.v1 import embedding_pb2 as pb
from polarvec_proto.v1 import embedding_pb2_grpc
from polarvec_server import telemetry
from polarvec_server.cli import app
from polarvec_server.config import Settings
from polarvec_server.models import commands
from polarvec_server.models.folder import read_folder
from polarvec_server.models.repository import EncoderConfig, encoder_source, write_repository
from polarvec_server.pipeline import canary
from polarvec_server.settings_table import settings_table
from polarvec_server.tritonserver import TritonInstall, TritonPlan
from server_process import ServerProcess
from unit.model_folders import write_small_model

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
API = (DOCS / "api.md").read_text(encoding="utf-8")
OPERATIONS = (DOCS / "operations.md").read_text(encoding="utf-8")
ARCHITECTURE = (DOCS / "architecture.md").read_text(encoding="utf-8")
MODELS = (DOCS / "models.md").read_text(encoding="utf-8")
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "CHANGELOG.md"]
MESSAGES = list(pb.DESCRIPTOR.message_types_by_name.values())
METHODS = list(pb.DESCRIPTOR.services_by_name["EmbeddingService"].methods)


def section(page: str, title: str) -> str:
    """What stands under a heading of the second level."""
    match = re.search(rf"(?ms)^## {re.escape(title)}\n(.*?)(?=^## |\Z)", page)
    assert match, title
    return match[1]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", page)


def anchors(page: str) -> set[str]:
    titles = re.findall(r"(?m)^#+ (.+)$", page)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_settings_table_is_what_the_command_prints():
    table = re.search(r"(?s)<!-- settings -->\n(.*?)\n<!-- /settings -->", OPERATIONS)
    assert table
    assert table[1] == settings_table(), "put the output of `polarvec-server settings` between the markers"


def test_every_metric_is_documented_and_no_other():
    source = inspect.getsource(telemetry.Metrics)
    kinds = re.findall(r"(Counter|Gauge|Histogram)\(\s*\"(polarvec_\w+)\"", source)
    assert len(kinds) > 10
    exported = {f"{name}_total" if kind == "Counter" else name: kind.lower() for kind, name in kinds}
    documented = dict(re.findall(r"(?m)^\| `(polarvec_\w+)[^`]*` \| (\w+) \|", section(OPERATIONS, "Metrics")))
    assert documented == exported


def test_metrics_have_the_labels_that_are_documented():
    source = inspect.getsource(telemetry.Metrics)
    for name, labels in re.findall(r"(?m)^\| `(polarvec_\w+)\{([^}]*)\}` \|", section(OPERATIONS, "Metrics")):
        wanted = ", ".join(f'"{label}"' for label in labels.split(", "))
        declared = re.search(rf"\"{name.removesuffix('_total')}\",[^[\]]*\[([^\]]*)\]", source)
        assert declared, name
        assert declared[1] == wanted, name


def test_every_flag_of_tritonserver_has_its_reason_and_no_other():
    plan = TritonPlan(TritonInstall(Path("t"), {}, ("--backend-directory=x",)), Path("r"), Path("s"), 1, 2.0, "p")
    table = re.findall(r"(?m)^\| (`--.*?) \|", section(OPERATIONS, "tritonserver"))
    documented = {flag for row in table for flag in re.findall(r"`(--[^`]+)`", row)}
    backend = re.compile(r"--backend-config=python,[\w-]+")
    used = {(backend.match(flag) or re.match(r"[^=]+", flag))[0] for flag in plan.command()[1:]}
    assert {(backend.match(flag) or re.match(r"[^=]+", flag))[0] for flag in documented} == used
    for flag in documented:
        if "=" in flag and "DIR" not in flag:
            assert any(actual.startswith(flag) for actual in plan.command()), flag


def test_every_command_is_documented_and_no_other():
    commands = typer.main.get_command(app).commands
    visible = {name for name, command in commands.items() if not command.hidden}
    documented = re.findall(r"(?m)^\| `polarvec-server ([\w-]+)", section(OPERATIONS, "Running it"))
    assert set(documented) == visible


def test_every_parameter_of_the_encoder_is_documented_and_no_other(tmp_path: Path):
    folder = read_folder(write_small_model(tmp_path / "small"))
    config = EncoderConfig(
        "encoder_0", folder, "cuda", "bf16", "0" * 12, tmp_path / "golden", "erf", 0, 0, None, (), 1, 0
    )
    write_repository(tmp_path, [config], encoder_source())
    text = (tmp_path / "encoder_0" / "config.pbtxt").read_text(encoding="utf-8")
    table = section(OPERATIONS, "The encoder in a stock Triton container").split("| parameter | value |")[1]
    rows = re.findall(r"(?m)^\| (`.*?`) \|", table)
    documented = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(documented) == sorted(re.findall(r'key: "(\w+)"', text))


def test_every_engine_is_documented_with_its_precisions():
    rows = re.findall(r"(?m)^\| `(\w+)` \| [^|]* \| ([^|]*) \|", section(OPERATIONS, "Engine, precision, hardware"))
    documented = {engine: set(re.findall(r"\b(f32|bf16|fp16|int8|fp8)\b", said)) for engine, said in rows}
    assert documented == {engine: set(names) for engine, names in choice._ENGINE_PRECISIONS.items()}


def test_precisions_are_named_alike_everywhere():
    settings = set(get_args(Settings.model_fields["precision"].annotation)) - {"auto"}
    assert settings == set(choice.PRECISIONS) == set(commands._PRECISIONS)
    engines = set(get_args(Settings.model_fields["engine"].annotation)) - {"auto"}
    assert engines == set(choice._ENGINE_PRECISIONS)
    schema = json.loads((ROOT / "deploy/helm/polarvec/values.schema.json").read_text(encoding="utf-8"))
    assert set(schema["properties"]["precision"]["enum"]) == settings
    for branch, engine in (("then", "cuda"), ("else", "openvino")):
        allowed = schema[branch]["properties"]["precision"]["enum"]
        assert set(allowed) == set(choice._ENGINE_PRECISIONS[engine])


@pytest.mark.parametrize("page", [ARCHITECTURE, MODELS], ids=["architecture", "models"])
def test_the_tolerances_of_the_golden_vectors_are_documented(page):
    said = " ".join(page.split())
    (listed,) = re.findall(r"\(cosine (0\.9999 [^)]*)\)", said)
    documented = {}
    for least, names in re.findall(r"(0\.\d+) in ([a-z0-9 ]+)", listed):
        documented |= dict.fromkeys(names.split(" and "), float(least))
    assert documented == golden._MIN_COSINE


def test_the_canary_has_the_loosest_of_these_tolerances():
    assert canary._MIN_COSINE == min(golden._MIN_COSINE.values())
    assert f"cosine to the stored one is below {canary._MIN_COSINE} counts" in OPERATIONS


def test_the_parity_table_has_every_engine_and_precision():
    page = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    table = page.split("<!-- parity -->")[1].split("<!-- /parity -->")[0]
    rows = re.findall(r"(?m)^\| ([\w-]+) \| (\w+) \| (\w+) \| (?:erf|tanh) \| (?:0\.|1\.0|reference|not )", table)
    # The engine null computes nothing that could be compared.
    computing = {engine: names for engine, names in choice._ENGINE_PRECISIONS.items() if engine != "null"}
    pairs = {(engine, name) for engine, names in computing.items() for name in names}
    models = {model for model, _, _ in rows}
    assert models == {"e5-small", "arctic-l-2", "arctic-l"}
    for model in models:
        assert {(engine, precision) for known, engine, precision in rows if known == model} == pairs


def test_time_to_stop_is_what_the_code_takes():
    from polarvec_server import worker_pool
    from polarvec_server.tritonserver import EXIT_TIMEOUT_S

    extra = re.search(r"POLARVEC_DRAIN_DELAY_S \+ POLARVEC_DRAIN_S \+ (\d+) s", OPERATIONS)
    assert extra
    assert int(extra[1]) == worker_pool._STOP_MARGIN_S + EXIT_TIMEOUT_S + 3


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_every_call_is_documented(method):
    requests, answers = ("stream " if streams else "" for streams in (method.client_streaming, method.server_streaming))
    call = f"| `{method.name}({requests}{method.input_type.name}) -> {answers}{method.output_type.name}` |"
    assert call in API
    # ListModels and GetModel share a heading.
    assert re.search(rf"(?m)^### .*\b{method.name}\b", API)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.name)
def test_every_field_is_documented(message):
    for field in message.fields:
        assert f"`{field.name}`" in API, f"{message.name}.{field.name}"


def test_the_limits_are_the_defaults():
    settings = Settings.model_construct()
    said = section(API, "Limits").split("\n\n")[0]
    for number in (settings.max_texts, settings.max_call_tokens):
        assert f"{number:,}" in said
    for count in (settings.max_request_bytes, settings.max_text_bytes):
        assert f"{count >> 20} MiB" in said
    deadlines = section(API, "Deadlines and cancellation")
    for seconds in (settings.default_deadline_s, settings.max_deadline_s):
        assert f"{seconds:.0f} s" in deadlines


def test_encodings_are_documented_with_the_names_of_the_proto():
    rows = re.findall(r"(?m)^\| ([A-Z]+\d*) \|", section(API, "Encodings"))
    assert rows == [name.removeprefix("ENCODING_") for name in pb.Encoding.keys() if not name.endswith("UNSPECIFIED")]


def test_the_files_that_the_architecture_names_exist():
    places = [ROOT / "server" / "polarvec_server", ROOT / "model_repository" / "encoder" / "1", ROOT]
    named = set(re.findall(r"`?((?:[\w-]+/)*[\w-]+\.py)`?", ARCHITECTURE))
    assert len(named) > 20
    for name in named:
        folders = [*places, *(place / folder for place in places[:2] for folder in ("pipeline", "polarvec_encoder"))]
        assert any((folder / name).exists() for folder in folders), name


def test_the_tensors_are_those_of_the_encoder():
    from polarvec_server.pipeline.triton import INPUTS, OUTPUTS

    rows = re.findall(r"(?m)^\| `(\w+)` \| (\w+) \|", section(ARCHITECTURE, "The tensors"))
    assert rows == [*INPUTS.items(), *OUTPUTS.items()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    content = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", content):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("page", sorted((DOCS / "decisions").glob("*.md")), ids=lambda page: page.stem)
def test_decisions_have_number_decision_and_reason(page: Path):
    content = page.read_text(encoding="utf-8")
    assert content.startswith(f"# {page.name[:4]}: ")
    assert re.search(r"(?m)^\*\*Decision\.\*\* ", content)
    assert re.search(r"(?m)^\*\*Why\.\*\* ", content)


def test_decisions_are_numbered_without_gaps():
    numbers = [int(page.name[:4]) for page in sorted((DOCS / "decisions").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.fixture(scope="module")
def examples(tiny_server: ServerProcess) -> dict[str, object]:
    """Names that the Python examples of docs/api.md define, after they have run against a server."""
    names: dict[str, object] = {}
    sources = blocks(API, "python")
    assert len(sources) == 4
    places = {
        "127.0.0.1:50051": tiny_server.target,
        "127.0.0.1:8000": f"127.0.0.1:{tiny_server.openai_port}",
        "e5-small": "tiny",
    }
    for source in sources:
        for written, here in places.items():
            source = source.replace(written, here)
        exec(compile(source, "docs/api.md", "exec"), names)
    return names


def test_the_python_example_prints_vectors(examples: dict[str, object]):
    vectors = examples["vectors"]
    assert vectors.shape == (2, examples["answer"].dimensions)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_the_openai_example_ranks_and_reads_int8(examples: dict[str, object]):
    assert examples["scores"].shape == (2,)
    assert examples["row"].shape == (examples["answer"].dimensions,)
    np.testing.assert_allclose(np.linalg.norm(examples["row"]), 1, atol=0.02)


@pytest.mark.parametrize(
    ("encoding", "least_cosine"),
    [
        (pb.ENCODING_FLOAT32, 1 - 1e-6),
        (pb.ENCODING_FLOAT16, 0.99999),
        (pb.ENCODING_INT8, 0.999),
        (pb.ENCODING_BINARY, 0.6),
    ],
    ids=["float32", "float16", "int8", "binary"],
)
def test_the_reader_in_the_docs_reads_every_encoding(
    examples: dict[str, object], tiny_server: ServerProcess, encoding: int, least_cosine: float
):
    with grpc.insecure_channel(tiny_server.target) as channel:
        stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        texts = ["대한민국의 수도는 서울이다.", "Seoul is the capital of South Korea."]
        request = pb.EmbedRequest(texts=texts, input_type=pb.INPUT_TYPE_DOCUMENT, encoding=encoding)
        read = examples["read_vectors"](stub.Embed(request, timeout=30))
    expected = examples["vectors"]
    assert read.shape == expected.shape
    cosines = (read * expected).sum(axis=1) / np.linalg.norm(read, axis=1)
    assert cosines.min() >= least_cosine
    if encoding == pb.ENCODING_BINARY:
        np.testing.assert_array_equal(read > 0, expected > 0)


def test_the_reason_in_the_docs_is_the_reason(examples: dict[str, object], tiny_server: ServerProcess):
    with grpc.insecure_channel(tiny_server.target) as channel:
        stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        with pytest.raises(grpc.RpcError) as failed:
            stub.Embed(pb.EmbedRequest(texts=["a"]), timeout=30)
    assert examples["reason"](failed.value) == "UNKNOWN_INPUT_TYPE"


def test_the_service_config_in_the_docs_is_one(tiny_server: ServerProcess):
    config = blocks(API, "json")[0]
    policy = json.loads(config)["methodConfig"][0]["retryPolicy"]
    assert policy["retryableStatusCodes"] == ["UNAVAILABLE"]
    # gRPC fails every call of a channel whose service config it cannot read.
    with grpc.insecure_channel(tiny_server.target, options=[("grpc.service_config", config)]) as channel:
        stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        assert stub.ListModels(pb.ListModelsRequest(), timeout=30).models
