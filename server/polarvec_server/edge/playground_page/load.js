// The live view of load: asks for the server's counters every second and shows what happened in between.
const EVERY_MS = 1000;
const KEPT_S = 60;
// Rates over the last seconds: one second alone jumps, ten lag behind.
const WINDOW_S = 5;
const TILES = ["requests", "tokens_s", "waiting", "batch", "p99"];

/** The value below which a share of the observations lies, as Prometheus' histogram_quantile reads it off buckets. */
function quantile(share, bounds, counts) {
  const total = counts.at(-1);
  if (!total) return null;
  const rank = share * total;
  const index = counts.findIndex((count) => count >= rank);
  if (index >= bounds.length) return bounds.at(-1);
  const [below, from] = index ? [counts[index - 1], bounds[index - 1]] : [0, 0];
  return from + ((bounds[index] - from) * (rank - below)) / (counts[index] - below);
}

/** What happened between two readings of the counters; null where nothing can be said. */
function between(before, now) {
  const seconds = now.at_s - before.at_s;
  const grown = (name) => now[name] - before[name];
  const counts = now.latency.counts.map((count, index) => count - (before.latency.counts[index] ?? 0));
  const packs = grown("packs");
  let [batch, packsEach] = [null, null];
  if (now.batches !== null && before.batches !== null && packs > 0) {
    // Canaries are packs of the server's own and travel alone: what Triton computed beyond the callers' packs.
    const batches = Math.min(packs, Math.max(1, grown("batches") - Math.max(0, grown("batched_packs") - packs)));
    [batch, packsEach] = [grown("texts") / batches, packs / batches];
  }
  const p99 = quantile(0.99, now.latency.bounds_s, counts);
  return {
    requests: grown("requests") / seconds, failed: grown("failed"), tokens_s: grown("tokens") / seconds,
    texts_s: grown("texts") / seconds, waiting: Math.max(0, now.held_tokens - now.in_flight_tokens),
    in_flight: now.in_flight_tokens, batch, packs: packsEach, p99: p99 === null ? null : p99 * 1e3, seconds,
  };
}

const readings = [];
const history = [];
let unreadable = null;

function addReading(reading) {
  const last = readings.at(-1);
  // A server that started anew counts from 0.
  if (last && (reading.requests < last.requests || reading.at_s <= last.at_s)) readings.length = history.length = 0;
  readings.push(reading);
  while (readings[0].at_s < reading.at_s - KEPT_S) readings.shift();
  const before = readings.findLast((old) => old.at_s <= reading.at_s - WINDOW_S + 0.5) ?? readings[0];
  if (before !== reading) history.push(between(before, reading));
  while (history.length > KEPT_S) history.shift();
}

function line(values) {
  const top = Math.max(1e-9, ...values.map((value) => value ?? 0));
  const from = KEPT_S - values.length;
  return values.map((value, index) => `${((from + index) / (KEPT_S - 1)) * 100},${25 - ((value ?? 0) / top) * 24}`).join(" ");
}

function showLoad() {
  const now = history.at(-1);
  const shown = (value, digits) => (value === null ? word("none") : digits === undefined ? short(value) : number(value, digits));
  const below = now && {
    requests: now.failed ? word("failed", number(now.failed)) : word("over", number(now.seconds)),
    tokens_s: word("texts_s", short(now.texts_s)),
    waiting: word("in_flight", number(now.in_flight)),
    batch: readings.at(-1).batches === null ? word("no_batch") : now.packs === null ? "" : word("packs", number(now.packs, 1)),
    p99: readings.at(-1).encoder_up ? word("over", number(now.seconds)) : word("encoder_down"),
  };
  byId("load").classList.toggle("away", Boolean(unreadable));
  byId("tiles").replaceChildren(...TILES.map((name) => {
    const value = now ? now[name] : null;
    const text = name === "batch" ? shown(value, 1) : name === "p99" && value !== null ? `${short(value)} ms` : shown(value);
    const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    drawing.setAttribute("viewBox", "0 0 100 26");
    drawing.setAttribute("preserveAspectRatio", "none");
    drawing.setAttribute("aria-hidden", "true");
    const drawn = drawing.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "polyline"));
    drawn.setAttribute("points", line(history.map((entry) => entry[name])));
    const said = element("small", {}, unreadable ?? (below ? below[name] : ""));
    return element("div", { class: "tile", "data-tile": name },
      element("dt", {}, word(name)), element("dd", {}, element("b", {}, text), drawing, said));
  }));
}

/** Reads on while somebody can see it; `allowed` says whether the server would answer. */
async function watchLoad(read, allowed) {
  for (;;) {
    if (!document.hidden && allowed()) {
      try {
        const reading = await read("playground/load");
        unreadable = null;
        addReading(reading);
      } catch (error) {
        unreadable = error.status === 401 ? "" : word("no_load");
      }
      showLoad();
    }
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
}
