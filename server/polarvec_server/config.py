"""The settings of every process of the server, read once in `cli.py`."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from polarvec_server.errors import ConfigError

PREFIX = "POLARVEC_"
# Engines whose computing leaves the cores to the gateway and wants large packs.
GPU_ENGINES = frozenset({"cuda"})
# Names with our prefix that other programs of ours read.
_FOREIGN = {"POLARVEC_TARGET", "POLARVEC_API_KEY"}


class Settings(BaseSettings):
    """Every setting is an environment variable: POLARVEC_ and the field's name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, use_attribute_docstrings=True, extra="forbid", env_ignore_empty=True
    )

    model: str = "e5-small"
    """Models to serve, separated by commas, the default first: `e5-small`, hub names, `name@revision`, or folders."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all interfaces."""
    grpc_port: int = Field(50051, ge=1, le=65535)
    """Port of the gRPC API."""
    http_port: int = Field(8080, ge=1, le=65535)
    """Port of /metrics, /healthz and /readyz."""
    openai_port: int = Field(8000, ge=0, le=65535)
    """Port of the HTTP API in OpenAI's form, and of the playground; 0 means none."""
    playground: bool = False
    """Offers a page to try the models with, at / of POLARVEC_OPENAI_PORT."""
    api_keys_file: str = ""
    """File of the API keys that calls must bring, one `NAME KEY [MODELS]` a line; empty means that no key is needed."""
    tls_cert_file: str = ""
    """PEM file with the server's certificate and what is between it and its root; empty means no TLS."""
    tls_key_file: str = ""
    """PEM file with the private key of POLARVEC_TLS_CERT_FILE."""
    tls_client_ca_file: str = ""
    """PEM file with the roots of clients' certificates; callers must bring one (mTLS). Empty means that none is asked
    for."""
    tei_prompt_name: str = ""
    """Prompt of a tei.v1 call that names none, one of the model's such as `passage`; empty means no prompt."""
    workers: int = Field(0, ge=0, le=256)
    """Gateway processes; 0 means one for every 8 cores beside a CPU engine, or 1 to 8 on the cores that ENGINE_THREADS
    leaves free; beside a GPU or in front of an encoder elsewhere one a core, at most 8."""
    engine: Literal["auto", "openvino", "cuda", "torch", "null"] = "auto"
    """What computes; auto takes cuda where there is a GPU and openvino elsewhere, never null, whose
    vectors cost and mean nothing: for tests of load."""
    precision: Literal["auto", "f32", "bf16", "fp16", "int8", "fp8"] = "auto"
    """Number format of the computation: f32, bf16 or int8 on openvino; f32, bf16, fp16 or fp8 on cuda; f32 on torch
    and null. auto takes bf16 where the hardware has it and f32 elsewhere."""
    gelu: Literal["auto", "erf", "tanh"] = "auto"
    """Form of GELU: exact (erf), or the tanh approximation, on cuda only; auto takes tanh for bf16, fp16 and fp8 on
    cuda and erf elsewhere."""
    engine_threads: int = Field(0, ge=0, le=1024)
    """Threads of a CPU engine; 0 means as many cores as affinity and the container's limit allow; with more than two,
    `serve` leaves one for each gateway process."""
    engine_streams: int = Field(0, ge=0, le=64)
    """Groups of texts that a CPU engine computes side by side on its threads; 0 means one for every 8 threads, at
    least one."""
    gpus: str = Field("", pattern=r"^\d+(,\d+)*$|^$")
    """Numbers of the GPUs that compute, separated by commas; empty means every one that this process may use."""
    cache_dir: Path = Path("~/.cache/polarvec")
    """Where models, golden files and hashes are kept."""
    engine_cache_dir: str = ""
    """Where engines keep converted weights for the next start; empty means `engines` in POLARVEC_CACHE_DIR, `none`
    keeps nothing."""
    hub_endpoint: str = ""
    """Address of the model hub; empty means the one that huggingface_hub is set up for."""
    triton_binary: str = ""
    """The tritonserver binary; empty means the one on PATH, or else the one inside the package nvidia-pytriton."""
    triton_target: str = ""
    """For `polarvec-server gateway`: gRPC address of somebody else's tritonserver, such as unix:/run/triton/grpc:0."""
    triton_metrics_port: int = Field(0, ge=0, le=65535)
    """Port of Triton's own /metrics on loopback; 0 takes a free one."""
    pack_tokens: int = Field(0, ge=0)
    """Most tokens of one call in one request to Triton (one longer text still goes alone, and small packs of several
    calls join to 256 or 512); 0 means 1024 on a CPU, 8192 on a GPU."""
    window_tokens: int = Field(0, ge=0)
    """Most tokens of a model on their way in Triton, split between the workers; 0 means on a CPU what it computes in
    0.6 seconds, within three to eight packs, and four packs for each GPU; at least two packs for each worker."""
    queue_tokens: int = Field(0, ge=0)
    """Most tokens of a model that are held, split between the workers (half for interactive calls, a quarter each for
    bulk calls and streams); beyond that calls are OVERLOADED; 0 means 262144 on a CPU, 4194304 on a GPU."""
    cache_bytes: int = Field(0, ge=0)
    """Most bytes of vectors that are kept for texts that come again, of the whole server, split evenly between workers
    and models; 0 keeps none."""
    max_texts: int = Field(1024, ge=1)
    """Most texts a call."""
    max_call_tokens: int = Field(262144, ge=1)
    """Most tokens a call, all texts together."""
    max_request_bytes: int = Field(16 << 20, ge=1024)
    """Most bytes of a request message."""
    max_text_bytes: int = Field(1 << 20, ge=1)
    """Most bytes of one text in UTF-8, with or without truncation."""
    default_deadline_s: float = Field(30.0, gt=0)
    """Deadline of a call that brings none."""
    max_deadline_s: float = Field(600.0, gt=0)
    """Longest deadline that a unary call gets."""
    canary_interval_s: float = Field(1.0, gt=0)
    """Seconds between two canary inferences of an idle encoder."""
    canary_timeout_s: float = Field(300.0, gt=0)
    """Seconds without a single answer from the encoder after which it counts as hung and is restarted; must be longer
    than the longest text takes. A dead or stopped tritonserver or stub is noticed within seconds in any case."""
    encoder_patience_s: float = Field(20.0, ge=0)
    """Seconds that calls wait for an encoder that restarts before they are refused as ENCODER_UNAVAILABLE."""
    load_timeout_s: float = Field(600.0, gt=0)
    """Seconds that the encoder may take to load."""
    drain_s: float = Field(20.0, ge=0)
    """Seconds that calls in progress get to finish when the server is stopped."""
    drain_delay_s: float = Field(0.0, ge=0)
    """Seconds between saying NOT_SERVING and closing the listener, for load balancers that look away slowly."""
    reflection: bool = True
    """Offers gRPC server reflection."""
    channelz: bool = False
    """Offers gRPC channelz."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe log lines that are written."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """Shape of the log lines; auto means console on a terminal and json elsewhere."""

    @property
    def models_dir(self) -> Path:
        """Where model folders are kept."""
        return self.cache_dir.expanduser() / "models"

    @property
    def gpu_numbers(self) -> tuple[int, ...]:
        """The GPUs that are named."""
        return tuple(sorted({int(number) for number in self.gpus.split(",") if number}))

    def engine_cache(self, fingerprint: str) -> Path | None:
        """Returns where an engine keeps the weights of one embedding space; None if nowhere."""
        if self.engine_cache_dir == "none":
            return None
        root = Path(self.engine_cache_dir) if self.engine_cache_dir else self.cache_dir / "engines"
        return root.expanduser().resolve() / fingerprint

    @property
    def model_names(self) -> tuple[str, ...]:
        """The models to serve, the default one first."""
        return tuple(name.strip() for name in self.model.split(",") if name.strip())

    @property
    def grpc_address(self) -> str:
        """Where the gRPC API listens."""
        return f"{self._bracketed_host}:{self.grpc_port}"

    @property
    def http_address(self) -> str:
        """Where HTTP listens."""
        return f"{self._bracketed_host}:{self.http_port}"

    @property
    def openai_address(self) -> str:
        """Where the HTTP API listens."""
        return f"{self._bracketed_host}:{self.openai_port}"

    @property
    def _bracketed_host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def public_ports(self) -> list[tuple[str, int]]:
        """The ports that listen on POLARVEC_HOST, each with the name of its setting."""
        names = ("grpc_port", "http_port", "openai_port")
        return [(f"{PREFIX}{name.upper()}", port) for name in names if (port := getattr(self, name))]

    def as_environment(self) -> dict[str, str]:
        """Returns the variables that give a child process these very settings."""
        return {f"{PREFIX}{name.upper()}": str(value) for name, value in self.model_dump().items() if value != ""}


def load_settings(**overrides: object) -> Settings:
    """Reads the settings from the environment.

    Args:
        overrides: Values that win over the environment; None means not given.

    Raises:
        ConfigError: A variable has a value that does not fit, or there is no setting of that name.
    """
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | _FOREIGN
    for name in os.environ:
        if name.startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)
            raise ConfigError(f"There is no setting {name}; did you mean {near[0]}?")
    try:
        settings = Settings(**{name: value for name, value in overrides.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = f"{PREFIX}{'_'.join(str(part) for part in first['loc']).upper()}"
        raise ConfigError(f"{name}: {first['msg']}; it is {first['input']!r}.") from error
    _check(settings)
    return settings


def _check(settings: Settings) -> None:
    """Raises ConfigError where two settings contradict each other."""
    taken: dict[int, str] = {}
    for name, port in settings.public_ports:
        if port in taken:
            raise ConfigError(f"{taken[port]} and {name} are both {port}; set one to another.")
        taken[port] = name
    if settings.playground and not settings.openai_port:
        raise ConfigError("POLARVEC_PLAYGROUND needs a port: set POLARVEC_OPENAI_PORT.")
    if bool(settings.tls_cert_file) != bool(settings.tls_key_file):
        raise ConfigError("POLARVEC_TLS_CERT_FILE and POLARVEC_TLS_KEY_FILE go together; set both or none.")
    if settings.tls_client_ca_file and not settings.tls_cert_file:
        raise ConfigError("POLARVEC_TLS_CLIENT_CA_FILE needs POLARVEC_TLS_CERT_FILE and POLARVEC_TLS_KEY_FILE.")
