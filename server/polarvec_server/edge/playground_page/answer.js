// Shows one answer: ranking, heat map, tokens and time. Texts enter as text nodes only, never as markup.
const FIRST_PLACES = 5;
const HARDLY_MORE = 2;

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "at") made.style.setProperty("--at", value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const byId = (id) => document.getElementById(id);

/** Places of the documents, best first; a stable sort keeps equal ones in their order. */
const order = (scores) => scores.map((_, index) => index).sort((a, b) => scores[b] - scores[a]);

function range(scores) {
  let [low, high] = [Infinity, -Infinity];
  for (const score of scores.flat()) [low, high] = [Math.min(low, score), Math.max(high, score)];
  return { low, high, place: (score) => (high > low ? (score - low) / (high - low) : 1) };
}

function showRanking(queries, documents, scores, scale) {
  byId("ranking").replaceChildren(...queries.map((query, row) => {
    const places = order(scores[row]).map((column, place) => element("li", {},
      element("span", { class: "place" }, number(place + 1)),
      element("span", { class: "text clamp", title: documents[column] }, element("span", { class: "id" }, `D${column + 1}`), documents[column]),
      element("span", { class: "track", "aria-hidden": "true" }, element("i", { at: scale.place(scores[row][column]) })),
      element("span", { class: "score" }, number(scores[row][column], 3))));
    const first = places.length > FIRST_PLACES + HARDLY_MORE ? FIRST_PLACES : places.length;
    const list = element("ol", {}, ...places.slice(0, first));
    const block = element("div", { class: "query" },
      element("h3", {}, element("span", { class: "id" }, `Q${row + 1}`), element("span", { class: "clamp" }, query)), list);
    if (first < places.length) {
      const more = element("button", { type: "button", class: "link more" }, word("more", number(places.length - first)));
      more.addEventListener("click", () => { list.append(...places.slice(first)); more.remove(); });
      block.append(more);
    }
    return block;
  }));
}

function showHeat(queries, documents, scores, scale) {
  const head = element("tr", {}, element("th", { scope: "col" }, element("span", { class: "unseen" }, word("query"))),
    ...documents.map((text, column) => element("th", { scope: "col", title: text }, `D${column + 1}`)));
  const rows = queries.map((query, row) => {
    const best = order(scores[row])[0];
    return element("tr", {},
      element("th", { scope: "row", title: query },
        element("span", {}, element("span", { class: "id" }, `Q${row + 1}`), element("span", { class: "clamp" }, query))),
      ...scores[row].map((score, column) => element("td",
        { at: scale.place(score), class: column === best ? "best" : "", title: `Q${row + 1} · D${column + 1}: ${documents[column]}` },
        number(score, 3))));
  });
  byId("heat").replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows));
  byId("lowest").textContent = number(scale.low, 3);
  byId("highest").textContent = number(scale.high, 3);
}

function showTokens(queries, documents, answer) {
  const rows = [["Q", queries, answer.queries], ["D", documents, answer.documents]].flatMap(([letter, texts, side]) =>
    texts.map((text, index) => {
      const [read, full] = [side.token_counts[index], side.full_token_counts[index]];
      const count = full > read ? element("span", { class: "cut" }, word("cut", number(full), number(read))) : number(read);
      return element("tr", {},
        element("th", { scope: "row" }, element("span", { class: "row" },
          element("span", { class: "id" }, `${letter}${index + 1}`), element("span", { class: "clamp", title: text.slice(0, 300) }, text))),
        element("td", {}, count));
    }));
  const head = element("tr", { class: "unseen" }, element("th", { scope: "col" }, word("text")), element("th", { scope: "col" }, word("tokens")));
  byId("tokens").replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows));
  const prompts = [answer.queries.prompt, answer.documents.prompt].filter(Boolean).map((prompt) => `“${prompt.replaceAll(" ", "\u00a0")}”`);
  byId("tokens-hint").textContent = word("tokens_hint", number(answer.max_token_count), prompts.join(", "));
}

function showTime(timings, totalMs) {
  const { tokenize, queue, inference } = timings;
  const stages = { tokenize, queue, inference, rest: Math.max(0, totalMs - tokenize - queue - inference) };
  byId("time-hint").textContent = word("time_hint");
  byId("time-bar").replaceChildren(...Object.values(stages).map((ms, index) => element("i", { class: `s${index + 1}`, at: Math.max(ms, 1e-3) })));
  const rows = Object.entries(stages).map(([name, ms], index) => element("tr", {},
    element("th", { scope: "row" }, element("i", { class: `s${index + 1}`, "aria-hidden": "true" }), word(name)), element("td", {}, `${number(ms, 1)} ms`)));
  rows.push(element("tr", {}, element("th", { scope: "row" }, word("total")), element("td", {}, `${number(totalMs, 1)} ms`)));
  byId("time").replaceChildren(element("tbody", {}, ...rows));
}

function showAnswer({ queries, documents, answer, totalMs }) {
  const scale = range(answer.scores);
  showRanking(queries, documents, answer.scores, scale);
  showHeat(queries, documents, answer.scores, scale);
  showTokens(queries, documents, answer);
  showTime(answer.timings_ms, totalMs);
  byId("nothing").hidden = true;
  byId("answer").hidden = false;
}
