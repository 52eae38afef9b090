// The form: reads what was typed, asks the server, and hands the answer to those who show it.
let models = [];
let shown = null;
let busy = false;
// Without a key that the server knows, the live view would only fill its log.
let locked = false;

const lines = (id) => byId(id).value.split("\n").map((text) => text.trim()).filter(Boolean);

async function call(path, body) {
  const headers = { "content-type": "application/json" };
  const key = byId("key").value.trim();
  if (key) headers.authorization = `Bearer ${key}`;
  const answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), cache: "no-store" });
  locked = answer.status === 401;
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(content.error?.message ?? answer.statusText), { status: answer.status, ...content.error });
  return content;
}

function tell(error) {
  const field = error.field ?? "";
  const at = field.replace(/^(queries|documents)\[(\d+)\]$/, (_, side, index) => `${side[0] === "q" ? "Q" : "D"}${Number(index) + 1}`);
  const known = WORDS[language][`problem_${error.status ? error.reason : "network"}`];
  const said = typeof known === "function" ? known(error.metadata ?? {}, at) : known;
  byId("problem").textContent = said ?? error.message.replace(field || "\0", at);
  byId("problem").hidden = false;
  byId("nothing").hidden = true;
  if (error.status === 401) {
    byId("key-field").hidden = false;
    byId("key").focus();
  }
}

/** On a narrow screen the results lie below what was typed. */
function showResults() {
  if (byId("results").getBoundingClientRect().top > innerHeight * 0.7) byId("results").scrollIntoView();
}

async function rank({ first = false } = {}) {
  const [queries, documents] = [lines("queries"), lines("documents")];
  if (busy) return;
  busy = true;
  byId("rank").setAttribute("aria-disabled", "true");
  byId("answer").classList.add("stale");
  const started = performance.now();
  try {
    if (!models.length) await loadModels();
    const answer = await call("playground/rank", {
      model: byId("model").value, queries, documents, dimensions: Number(byId("dimensions").value), truncation: byId("truncation").value,
    });
    const totalMs = performance.now() - started;
    byId("problem").hidden = true;
    shown = { queries, documents, answer, totalMs };
    showAnswer(shown);
    byId("answer").classList.remove("stale");
    byId("done").textContent = word("done", number(queries.length * documents.length), number(totalMs));
  } catch (error) {
    tell(error);
  } finally {
    busy = false;
    byId("rank").removeAttribute("aria-disabled");
    if (!first) showResults();
  }
}

async function loadModels() {
  models = (await call("playground/models")).models;
  byId("model").replaceChildren(...models.map(({ id }) => element("option", { value: id }, id)));
  showModel();
}

function showModel() {
  const model = models.find(({ id }) => id === byId("model").value);
  if (!model) return;
  const trained = model.trained_dimensions.filter((count) => count < model.dimensions).sort((a, b) => b - a);
  const chosen = byId("dimensions").value;
  byId("dimensions").replaceChildren(element("option", { value: 0 }, word("all", model.dimensions)),
    ...(trained.length ? trained : [model.dimensions / 2, model.dimensions / 4].filter((count) => count >= 8 && count % 8 === 0))
      .map((count) => element("option", { value: count }, count)));
  byId("dimensions").value = [...byId("dimensions").options].some((option) => option.value === chosen) ? chosen : "0";
  byId("about").textContent = [model.id, model.architecture, `${model.engine} ${model.precision}`, model.fingerprint].join(" · ");
}

function showCounts() {
  for (const id of ["queries", "documents"]) byId(`${id}-hint`).textContent = word("count", number(lines(id).length));
}

function speak(chosen) {
  language = chosen;
  document.documentElement.lang = chosen;
  for (const place of document.querySelectorAll("[data-word]")) place.textContent = word(place.dataset.word);
  byId("language").textContent = word("language");
  byId("language").lang = chosen === "ko" ? "en" : "ko";
  showCounts();
  showModel();
  if (shown) showAnswer(shown);
  showLoad();
}

function paint(theme) {
  const dark = theme === "dark" || (theme === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  byId("theme").value = theme;
}

/** A choice that outlives the page where the browser lets it. */
const choice = {
  read: (name, otherwise) => { try { return localStorage.getItem(`polarvec-${name}`) ?? otherwise; } catch { return otherwise; } },
  keep: (name, value) => { try { localStorage.setItem(`polarvec-${name}`, value); } catch { /* Then not. */ } },
};

function fill({ queries, documents, truncation = "refuse" }) {
  byId("queries").value = queries.join("\n");
  byId("documents").value = documents.join("\n");
  byId("truncation").value = truncation;
  showCounts();
}

byId("form").addEventListener("submit", (event) => { event.preventDefault(); rank(); });
byId("form").addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); rank(); } });
byId("form").addEventListener("input", showCounts);
byId("model").addEventListener("change", showModel);
byId("key").addEventListener("change", () => { models = []; });
for (const button of document.querySelectorAll("[data-sample]")) button.addEventListener("click", () => { fill(SAMPLES[button.dataset.sample]); rank(); });
byId("language").addEventListener("click", () => { speak(language === "ko" ? "en" : "ko"); choice.keep("language", language); });
byId("theme").addEventListener("change", () => { paint(byId("theme").value); choice.keep("theme", byId("theme").value); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => paint(byId("theme").value));
byId("shortcut").textContent = /Mac|iPhone|iPad/.test(navigator.platform) ? "⌘ ↵" : "Ctrl ↵";

paint(choice.read("theme", "auto"));
fill(SAMPLES.facts);
speak(choice.read("language", navigator.language.startsWith("ko") ? "ko" : "en"));
rank({ first: true });
watchLoad(call, () => !locked);
