"""The playground's page in a real headless Chromium, against real servers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from conftest import running
from playwright.sync_api import Browser, Page, expect, sync_playwright
from polarvec_proto.v1 import embedding_pb2 as pb
from polarvec_proto.v1 import embedding_pb2_grpc
from server_process import ServerProcess, wait_until

SOURCES = Path(__file__).parents[2] / "server" / "polarvec_server" / "edge" / "playground_page"
KEY = "the-key-of-this-server"
Opened = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no chromium on PATH; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opened]:
    """Opens the page of a server; in the end nothing may have gone wrong in it, or been asked of anybody else."""
    contexts, problems = [], []

    def open_page(server: ServerProcess, *, width: int = 1360, **context: object) -> Page:
        contexts.append(
            browser.new_context(**{"viewport": {"width": width, "height": 900}, "locale": "en-US", **context})
        )
        page, origin = contexts[-1].new_page(), f"http://127.0.0.1:{server.openai_port}/"
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if "policy" in message.text.lower() else None)
        page.on(
            "request",
            lambda request: None if request.url.startswith((origin, "data:")) else problems.append(request.url),
        )
        page.goto(origin)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture(scope="module")
def locked_server(tiny_model: str, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"somebody {KEY}\n")
    yield from running(
        ServerProcess(tiny_model, cache, precision="f32", workers=1, playground=True, api_keys_file=keys)
    )


def answered(page: Page) -> Page:
    expect(page.locator("#answer:not(.stale)")).to_be_visible(timeout=30_000)
    return page


def rank(page: Page, queries: str, documents: str) -> Page:
    page.fill("#queries", queries)
    page.fill("#documents", documents)
    with page.expect_response("**/playground/rank"):
        page.press("#documents", "Control+Enter")
    # The response is here before the page has shown it.
    expect(page.locator("#rank:not([aria-disabled])")).to_be_visible()
    return page


def firsts(page: Page) -> list[str]:
    """Of each query the id of the document in the first place."""
    return page.locator("#ranking li:first-child .id").all_inner_texts()


@pytest.mark.parametrize(("locale", "language", "word"), [("en-US", "en", "Ranking"), ("ko-KR", "ko", "순위")])
def test_the_first_look_shows_an_example_ranked(server, opened, locale, language, word):
    page = answered(opened(server, locale=locale))
    expect(page.locator("html")).to_have_attribute("lang", language)
    expect(page.locator("#ranking-title")).to_have_text(word)
    # The e5-small model finds the right document for each of the three questions.
    assert firsts(page) == ["D1", "D2", "D3"]
    scores = [float(text) for text in page.locator(".query:first-child .score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 6
    expect(page.locator("#heat td")).to_have_count(18)
    assert page.locator("#heat td.best").all_inner_texts() == page.locator("li:first-child .score").all_inner_texts()
    expect(page.locator("#tokens tbody tr")).to_have_count(9)
    assert "512" in page.inner_text("#tokens-hint")
    times = [float(text.removesuffix(" ms").replace(",", "")) for text in page.locator("#time td").all_inner_texts()]
    assert times[-1] == pytest.approx(sum(times[:-1]), abs=0.3)
    assert times[2] > 0


def test_what_is_typed_is_ranked_with_the_options_chosen(server, opened):
    page = answered(opened(server))
    page.select_option("#dimensions", "192")
    rank(page, "What do cats eat?\n\n", "Der Zug kommt um acht.\n  고양이는 생선을 즐겨 먹는다.  \n")
    expect(page.locator("#queries-hint")).to_have_text("one a line · 1")
    expect(page.locator("#documents-hint")).to_have_text("one a line · 2")
    expect(page.locator("#ranking li:first-child .text")).to_have_text("D2고양이는 생선을 즐겨 먹는다.")
    expect(page.locator("#heat td")).to_have_count(2)
    expect(page.get_by_role("status")).to_contain_text("2 similarities in")


def test_more_places_are_shown_on_request(server, opened):
    page = rank(answered(opened(server)), "숫자", "\n".join(f"숫자 {number}" for number in range(12)))
    expect(page.locator("#ranking li")).to_have_count(5)
    page.get_by_role("button", name="7 more").click()
    expect(page.locator("#ranking li")).to_have_count(12)


def test_a_long_text_is_refused_or_cut_as_chosen(server, opened):
    page = answered(opened(server))
    with page.expect_response("**/playground/rank"):
        page.get_by_role("button", name="a long text").click()
    expect(page.locator("#tokens .cut")).to_have_text("cut: 1,577 → 512")
    page.select_option("#truncation", "refuse")
    page.get_by_role("button", name="Rank").click()
    expect(page.get_by_role("alert")).to_have_text(
        "D1 has 1577 tokens, the limit is 512; shorten it or ask for truncation."
    )
    page.get_by_role("button", name="한국어").click()
    page.get_by_role("button", name="순위 매기기").click()
    expect(page.get_by_role("alert")).to_contain_text("D1: 1577토큰입니다(한도 512)")
    page.select_option("#truncation", "start")
    page.get_by_role("button", name="순위 매기기").click()
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.locator("#tokens .cut")).to_have_text("잘림: 1,577 → 512")


def test_a_text_is_never_read_as_markup(server, opened):
    evil = "<img src=x onerror=alert(1)><b>굵게</b>"
    page = rank(answered(opened(server)), evil, evil)
    expect(page.locator("#ranking li .text")).to_have_text(f"D1{evil}")
    assert page.locator("#results img, #results b").count() == 0


def test_a_locked_server_asks_for_its_key(locked_server, opened):
    page = opened(locked_server)
    expect(page.get_by_role("alert")).to_have_text("This server asks for an API key. Type one that it knows.")
    expect(page.get_by_label("API key")).to_be_focused()
    # The live view asked once, beside the first ranking, and keeps still until there is a key.
    page.wait_for_timeout(2500)
    assert locked_server.counted('polarvec_requests_total{code="UNAUTHENTICATED",method="GET /playground/load"}') == 1
    page.keyboard.type("not this one")
    with page.expect_response("**/playground/models") as refused:
        page.keyboard.press("Enter")
    assert refused.value.status == 401
    expect(page.locator("#answer")).to_be_hidden()
    page.get_by_label("API key").fill(KEY)
    page.keyboard.press("Enter")
    answered(page)
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.locator("[data-tile=requests] b")).not_to_have_text("–", timeout=20_000)
    assert KEY not in locked_server.output
    assert page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])").count(KEY) == 0


def test_the_live_view_moves_with_the_work(server, opened):
    page = answered(opened(server))

    shown: dict[str, float] = {}

    def read(tile: str) -> float:
        text = page.inner_text(f"[data-tile={tile}] b").removesuffix(" ms").replace(",", "")
        return 0 if text == "–" else float(text)

    with grpc.insecure_channel(server.target) as channel:
        embed = embedding_pb2_grpc.EmbeddingServiceStub(channel).Embed

        def work_is_shown() -> bool:
            texts = [f"{number}번째 글" for number in range(8)]
            embed(pb.EmbedRequest(texts=texts, input_type=pb.INPUT_TYPE_DOCUMENT), timeout=60)
            page.wait_for_timeout(100)
            shown.update({tile: read(tile) for tile in ("requests", "tokens_s", "p99", "batch")})
            points = page.get_attribute("[data-tile=tokens_s] polyline", "points").split()
            return len(points) > 2 and all(shown.values()) and shown["batch"] > 2

        wait_until(work_is_shown, 40, "all tiles show the work")
    # Calls of eight texts, one after another.
    assert shown["batch"] <= 9
    assert shown["tokens_s"] > 10 * shown["requests"]


def test_colours_and_language_follow_the_reader_and_his_choice(server, opened):
    page = opened(server, color_scheme="dark")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.emulate_media(color_scheme="light")
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    page.get_by_label("Colours").select_option("dark")
    page.get_by_role("button", name="한국어").click()
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.locator("html")).to_have_attribute("lang", "ko")
    page.get_by_label("색상").select_option("auto")
    expect(page.locator("html")).to_have_attribute("data-theme", "light")


# WCAG 2.2, contrast (minimum): every visible piece of text against the background that it stands on.
_CONTRASTS = """() => {
  const parse = (colour) => {
    const numbers = colour.match(/[\\d.]+/g).map(Number);
    const scale = colour.startsWith("color(") ? 1 : 255;
    return { rgb: numbers.slice(0, 3).map((number) => number / scale), alpha: numbers[3] ?? 1 };
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((n) => (n <= 0.04045 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.alpha > 0.99) return colour.rgb;
    }
    return [1, 1, 1];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const [text, element] = [walker.currentNode.data.trim(), walker.currentNode.parentElement];
    if (!text || !element.checkVisibility() || ["SCRIPT", "OPTION"].includes(element.tagName)) continue;
    const both = [light(parse(getComputedStyle(element).color).rgb), light(ground(element))];
    found.push([(Math.max(...both) + 0.05) / (Math.min(...both) + 0.05), text.slice(0, 30)]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_background(server, opened, scheme):
    page = answered(opened(server, color_scheme=scheme))
    with page.expect_response("**/playground/rank"):
        page.get_by_role("button", name="a long text").click()
    answered(page)
    page.select_option("#truncation", "refuse")
    page.get_by_role("button", name="Rank").click()
    expect(page.get_by_role("alert")).to_be_visible()
    page.evaluate("document.getElementById('answer').classList.remove('stale')")
    contrasts = page.evaluate(_CONTRASTS)
    assert len(contrasts) > 50
    assert [entry for entry in contrasts if entry[0] < 4.5] == []


def test_every_control_and_table_has_a_name(server, opened):
    page = answered(opened(server))
    nameless = page.evaluate("""() => [...document.querySelectorAll("button, select, textarea, input, [role=group]")]
      .filter((control) => !control.textContent.trim() || control.matches("select, textarea, input"))
      .filter((control) => ![...control.labels ?? []].some((label) => label.textContent.trim()))
      .filter((control) => !control.getAttribute("aria-label")).map((control) => control.outerHTML.slice(0, 80))""")
    assert nameless == []
    assert page.locator("th:not([scope])").count() == 0
    for name in ("Similarities", "Tokens"):
        expect(page.get_by_role("group", name=name)).to_have_attribute("tabindex", "0")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the results")).to_be_focused()


@pytest.mark.parametrize("width", [320, 768, 1360])
def test_no_width_makes_the_page_scroll_sideways(server, opened, width):
    page = answered(opened(server, width=width))
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.fixture(scope="module")
def load_script(browser: Browser) -> Iterator[Page]:
    """A bare page with the functions of load.js."""
    page = browser.new_page()
    page.add_script_tag(content=(SOURCES / "load.js").read_text(encoding="utf-8"))
    yield page
    page.close()


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([0, 0, 0], None), ([100, 100, 100], 0.99), ([0, 100, 100], 1.99), ([50, 100, 100], 1.98), ([0, 0, 7], 2)],
    ids=["nothing", "all in the first bucket", "all in the second", "half and half", "all beyond the last"],
)
def test_p99_is_read_off_the_buckets(load_script, counts, expected):
    assert load_script.evaluate("counts => quantile(0.99, [1, 2], counts)", counts) == pytest.approx(expected)


def reading(at_s: float, calls: int, **changes: object) -> dict:
    counters = {"packs": 2 * calls, "texts": 20 * calls, "tokens": 400 * calls, "requests": calls, "failed": 0}
    state = {"held_tokens": 500, "in_flight_tokens": 300, "encoder_up": True}
    # One batch a call, and two canaries a second besides.
    triton = {"batches": calls + 2 * at_s, "batched_packs": 2 * calls + 2 * at_s}
    latency = {"bounds_s": [0.1, 1], "counts": [calls, calls, calls]}
    return {"at_s": at_s, **counters, **state, **triton, "latency": latency, **changes}


def test_rates_come_from_two_readings_and_canaries_are_no_batches(load_script):
    seen = load_script.evaluate("([a, b]) => between(a, b)", [reading(10, 0), reading(15, 50)])
    assert (seen["requests"], seen["texts_s"], seen["tokens_s"]) == (10, 200, 4000)
    assert (seen["batch"], seen["packs"]) == (20, 2)
    assert (seen["waiting"], seen["in_flight"]) == (200, 300)
    assert seen["p99"] == pytest.approx(99)


@pytest.mark.parametrize(
    ("later", "seen"),
    [
        (reading(15, 50, batches=None, batched_packs=None), {"batch": None, "packs": None, "requests": 10}),
        (reading(15, 0), {"batch": None, "p99": None, "requests": 0, "tokens_s": 0}),
    ],
    ids=["no metrics of Triton", "nothing to do"],
)
def test_what_is_not_known_is_not_shown(load_script, later, seen):
    shown = load_script.evaluate("([a, b]) => between(a, b)", [reading(10, 0), later])
    assert {name: shown[name] for name in seen} == seen


def test_the_first_calls_ever_count(load_script):
    """Before them there are no buckets yet."""
    before = reading(10, 0, latency={"bounds_s": [], "counts": [0]})
    assert load_script.evaluate("([a, b]) => between(a, b)", [before, reading(15, 50)])["p99"] == pytest.approx(99)


def test_a_server_that_starts_anew_is_looked_at_anew(load_script):
    rates = "readings => { readings.forEach(addReading); return history.map((one) => one.requests); }"
    fresh = [reading(1, 100), reading(2, 110), reading(3, 0), reading(4, 5)]
    assert load_script.evaluate(rates, fresh) == [5]
