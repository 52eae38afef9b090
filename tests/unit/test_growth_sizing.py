"""Sizing on paper: cases computed by hand, and docs/sizing.md says what the script says."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "load_tests" / "growth"))

from needs import Assumptions, need
from sizing import tables

PAGE = Path(__file__).parents[2] / "docs" / "sizing.md"
# Round numbers: 1,000 tokens/s a GPU at 4 layers of nothing but 2 * (4 + 2) * 1 = 12 operations each.
SMALL = Assumptions(
    layers=4, hidden=1, inner=1, peak_tflops=96e-9, share=0.5, served=1.0, utilisation=0.5, core_utilisation=0.5,
    gateway_us_a_text=100, gateway_us_a_token=10, encoder_us_a_text=50, encoder_us_a_token=5, new_words=2,
    cores_a_gpu=1, bytes_a_token=5, core_hour=1.0,
)  # fmt: skip


def test_operations_of_xlm_roberta_large():
    """24 layers: 2 * 12 * 1024^2 for the matrix products and 4 * 1024 for each token that is looked at."""
    given = Assumptions()
    assert given.flops_a_token(0) == 603_979_776
    assert given.flops_a_token(512) == 603_979_776 + 98_304 * 512
    # Attention costs as much as the products at six times the width.
    assert given.flops_a_token(6 * 1024) == 2 * given.flops_a_token(0)


def test_a_gpus_rate_is_its_operations_over_those_of_a_token():
    # 4 * (12 + 4 * tokens) operations; 48e3 a second are reached.
    assert SMALL.tokens_per_s(0) == pytest.approx(1_000)
    assert SMALL.tokens_per_s(3) == pytest.approx(500)
    assert replace(SMALL, served=0.9).tokens_per_s(3, share=1.0) == pytest.approx(900)


def test_what_a_rate_needs():
    wanted = need(SMALL, 3, 100)
    # 300 tokens/s of the 250 that are planned with.
    assert wanted.gpus == pytest.approx(1.2)
    # (100 + 10 * 2 * 3) + (50 + 5 * 3) = 225 us a text: 0.0225 cores, half used, and one for each of two GPUs.
    assert wanted.cores == pytest.approx(0.045 + 2)
    assert wanted.gbit_in == pytest.approx(100 * 15 * 8 / 1e9)
    assert wanted.gbit_out == pytest.approx({"float32": 3.2e-6, "float16": 1.6e-6, "int8": 0.8e-6, "binary": 0.1e-6})


def test_money_for_a_million_texts():
    # 3e6 tokens at 250 a second are 12,000 GPU seconds; 450 core seconds and as many as the GPU's.
    assert SMALL.million_cost(3, 0.5, 3.0) == pytest.approx((12_000 * 3 + 12_450) / 3600)


def test_the_page_holds_what_the_script_prints():
    page = PAGE.read_text(encoding="utf-8")
    held = re.search(r"(?s)<!-- sizing -->\n(.*?)\n<!-- /sizing -->", page)
    assert held
    assert held[1] == tables(Assumptions(), [200, 512]), "put the output of load_tests/growth/sizing.py there"


def test_every_assumption_stands_on_the_page_with_its_value():
    page = PAGE.read_text(encoding="utf-8")
    rows = dict(re.findall(r"(?m)^\| `--([\w-]+)` \| ([\d.,]+) \|", page))
    given = Assumptions()
    expected = {name.replace("_", "-"): getattr(given, name) for name in Assumptions.__dataclass_fields__}
    assert {name: float(value.replace(",", "")) for name, value in rows.items()} == pytest.approx(expected)
