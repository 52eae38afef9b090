import json
import subprocess
import sys

import pytest

SCRIPT = """
import structlog
from polarvec_server.logs import configure_logging
configure_logging("info", "{form}")
def work(text):
    raise ValueError("a bug")
try:
    work("{canary}")
except ValueError as error:
    structlog.get_logger().error("a call failed", exc_info=error)
"""


def test_lines_of_libraries_take_the_same_form():
    script = """
import logging
from polarvec_server.logs import configure_logging
configure_logging("info", "json")
logging.getLogger("asyncio").error("a task was %s", "lost")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    line = json.loads(done.stderr)
    assert (line["event"], line["source"], line["level"]) == ("a task was lost", "asyncio", "error")


@pytest.mark.parametrize("form", ["json", "console"])
def test_tracebacks_show_no_local_variables(form):
    canary = "주민등록번호 900101"
    script = SCRIPT.format(form=form, canary="' + chr(51452) + '민등록번호 900101")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert "a bug" in done.stderr
    assert canary not in done.stderr
