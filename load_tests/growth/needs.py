"""What a rate of texts needs on paper: GPUs, cores, gigabits and money, out of stated assumptions."""

from __future__ import annotations

import math
from dataclasses import dataclass

BYTES_A_NUMBER = {"float32": 4.0, "float16": 2.0, "int8": 1.0, "binary": 1 / 8}


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What the arithmetic starts from."""

    layers: int = 24
    """Of the encoder: XLM-RoBERTa-large."""
    hidden: int = 1024
    """Its width, and the numbers in a vector."""
    inner: int = 4096
    """Width of its feed-forward part."""
    peak_tflops: float = 989.4
    """Of one H100 SXM in bf16, dense, by its data sheet."""
    share: float = 0.45
    """Of that peak that the engine reaches: not measured yet."""
    share_low: float = 0.30
    """The pessimist's."""
    share_high: float = 0.60
    """The optimist's."""
    served: float = 0.90
    """Of the engine's own rate that is left through the server."""
    utilisation: float = 0.70
    """Of a GPU's rate that is planned with; the rest is headroom."""
    core_utilisation: float = 0.60
    """The same for CPU cores; queries wait less where cores are not full."""
    peak_factor: float = 2.0
    """Busiest hour over the mean, for a load that cannot wait; 1 for bulk work."""
    gateway_us_a_text: float = 25.0
    """CPU microseconds of the gateway for each text, measured."""
    gateway_us_a_token: float = 1.09
    """And for each token: the tokenizer, above all; measured."""
    encoder_us_a_text: float = 10.0
    """CPU microseconds of tritonserver and the encoder's process for each text, measured with the null engine."""
    encoder_us_a_token: float = 0.13
    """And for each token."""
    query_us: float = 850.0
    """CPU microseconds of the whole host for a call with one query, measured with a busy worker; alone it is 2,000."""
    cores_a_gpu: float = 1.0
    """Kept for the thread that feeds each GPU, as the server itself does; not measured yet."""
    new_words: float = 2.0
    """Times the gateway's cost a token where most words are new to the tokenizer's cache: 1.7 to 2.2 measured."""
    bytes_a_token: float = 4.5
    """UTF-8 bytes of Korean text for each token, counted on the FAQ."""
    gpu_hour: float = 3.0
    """Money for one H100 for an hour."""
    gpu_hour_low: float = 2.0
    """Reserved for long."""
    gpu_hour_high: float = 7.0
    """By the hour from a large cloud."""
    core_hour: float = 0.04
    """Money for one x86 core with 4 GB for an hour."""

    def flops_a_token(self, tokens: float) -> float:
        """Floating-point operations for one token of a text of `tokens`: matrix products, and attention over it."""
        products = 2 * (4 * self.hidden**2 + 2 * self.hidden * self.inner)
        return self.layers * (products + 4 * tokens * self.hidden)

    def tokens_per_s(self, tokens: float, share: float | None = None) -> float:
        """What one GPU computes through the server."""
        reached = self.share if share is None else share
        return reached * self.peak_tflops * 1e12 * self.served / self.flops_a_token(tokens)

    def host_cpu_s(self, tokens: float) -> float:
        """CPU seconds of one text on the host: gateway, tritonserver and the encoder's process."""
        gateway = self.gateway_us_a_text + self.gateway_us_a_token * self.new_words * tokens
        return (gateway + self.encoder_us_a_text + self.encoder_us_a_token * tokens) / 1e6

    def million_cost(self, tokens: float, share: float, gpu_hour: float) -> float:
        """Money for a million texts on machines that are rented while they work."""
        gpu_s = 1e6 * tokens / (self.tokens_per_s(tokens, share) * self.utilisation)
        core_s = 1e6 * self.host_cpu_s(tokens) / self.core_utilisation + gpu_s * self.cores_a_gpu
        return (gpu_s * gpu_hour + core_s * self.core_hour) / 3600


@dataclass(frozen=True, slots=True)
class Need:
    """What a rate of texts needs."""

    texts_per_s: float
    gpus: float
    cores: float
    gbit_in: float
    gbit_out: dict[str, float]


def need(given: Assumptions, tokens: float, texts_per_s: float, share: float | None = None) -> Need:
    """Returns what it takes to embed that many texts of `tokens` tokens a second.

    Args:
        given: The assumptions.
        tokens: Of each text.
        texts_per_s: In the busiest hour.
        share: Of the GPU's peak; the likely one if None.
    """
    gpus = texts_per_s * tokens / (given.tokens_per_s(tokens, share) * given.utilisation)
    return Need(
        texts_per_s=texts_per_s,
        gpus=gpus,
        # A GPU that is used in part wants its thread as well; what a float misses is no GPU.
        cores=texts_per_s * given.host_cpu_s(tokens) / given.core_utilisation
        + math.ceil(gpus - 1e-9) * given.cores_a_gpu,
        gbit_in=texts_per_s * tokens * given.bytes_a_token * 8 / 1e9,
        gbit_out={name: texts_per_s * given.hidden * size * 8 / 1e9 for name, size in BYTES_A_NUMBER.items()},
    )
