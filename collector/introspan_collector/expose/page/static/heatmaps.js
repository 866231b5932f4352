// Places on pages in, their heatmaps out: what each asks the API, and what its cells mean.
import { ask, range, who } from "./api.js";
import { diverging, sequential } from "./colours.js";
import { heat } from "./heat.js";
import { opened } from "./marks.js";
import { say } from "./say.js";
import { number, signed, time, timeTicks } from "./words.js";

const Z_LIMIT = 3;
const RANGE_LIMIT = 5;
const MAD_TO_SIGMA = 1.4826;
// With fewer columns a range has no middle worth comparing with.
const FEWEST_COLUMNS = 5;

export async function layers(place) {
  const seconds = Number(place.dataset.rangeSeconds);
  const found = await ask("heatmap", { ...who(place.dataset), ...range(place.dataset) });
  if (!found.layers.length) return say(place, "Nothing was measured in this range.");
  const scale = scaled(place.dataset.scale, found.mean, found.healthy);
  const unit = words(found.unit);
  heat(place, {
    ...scale,
    label: `${found.signal} by layer over time, ${scale.meaning}`,
    rows: found.layers.map((layer) => (layer === null ? "all" : String(layer))),
    rowTitle: "layer",
    columns: found.times.length,
    ticks: timeTicks(found.from, found.to, Math.max(place.clientWidth / 120, 2)).map((at) => ({
      at: (at - found.times[0]) / found.step_seconds,
      text: time(at, seconds),
    })),
    marks: opened(found.from, found.to).map((at) => (at - found.times[0]) / found.step_seconds),
    read: (row, column) => {
      const value = found.mean[row][column];
      const from = found.times[column];
      const when = `${time(from, seconds)}–${time(from + found.step_seconds, seconds)}`;
      const where = found.layers[row] === null ? "" : `layer ${found.layers[row]}, `;
      return `${where}${when}: ${value === null ? "not measured" : `mean ${number(value, 4)}${unit}${scale.read(row, column)}`}`;
    },
  });
}

export async function heads(place) {
  const found = await ask("heads", who(place.dataset));
  if (!found.layers.length) return say(place, "No decoded segment in the archive yet: it is written every half minute.");
  const unit = words(found.unit);
  heat(place, {
    ...scaled("value", found.mean),
    label: `${found.signal} by layer and head, mean of ${found.segments} segments`,
    rows: found.layers.map(String),
    rowTitle: "layer",
    columns: found.heads.length,
    columnTitle: "head",
    tallest: 52,
    ticks: everyFew(found.heads, Math.max(place.clientWidth / 40, 2)),
    read: (row, column) => `layer ${found.layers[row]}, head ${found.heads[column]}: ${number(found.mean[row][column], 4)}${unit}`,
    note: `mean of the newest ${found.segments} decoded segments, ${time(found.from)} to ${time(found.to)}`,
  });
}

export async function tokens(place) {
  const { id, from, to, request, replica, signal } = place.dataset;
  const { requests } = await ask("request", { id, from: from || undefined, to: to || undefined, signal });
  const one = requests.find((of) => of.request_id === request && of.replica === replica);
  const cells = one.segments.map((segment) => new Map(segment.values.filter((of) => of.signal === signal).map((of) => [of.layer, of])));
  const rows = [...new Set(cells.flatMap((cell) => [...cell.keys()]))].sort((a, b) => a - b);
  if (!rows.length) return say(place, "Not measured in this request.");
  const hasZ = cells.some((cell) => [...cell.values()].some((of) => of.z !== null));
  const value = (row, column) => cells[column].get(rows[row])?.[hasZ ? "z" : "value"] ?? null;
  const matrix = rows.map((_, row) => cells.map((_, column) => value(row, column)));
  const scale = hasZ ? zScale(matrix, Z_LIMIT, "z against healthy rows of the same kind", () => "") : scaled("value", matrix);
  heat(place, {
    ...scale,
    label: `${signal} by layer along the tokens, ${scale.meaning}`,
    rows: rows.map((layer) => (layer === null ? "all" : String(layer))),
    rowTitle: "layer",
    columns: cells.length,
    columnTitle: "tokens",
    widest: 150,
    ticks: everyFew(one.segments.map(span), Math.max(Math.min(place.clientWidth, 150 * cells.length) / 90, 2)),
    read: (row, column) => {
      const of = cells[column].get(rows[row]);
      const segment = one.segments[column];
      const where = `layer ${rows[row]}, ${segment.kind} tokens ${span(segment)} (${segment.measured_count} of ${segment.token_count} measured)`;
      if (!of) return `${where}: not measured`;
      const compared = of.healthy ? `, healthy ${number(of.healthy.mean)} ± ${number(of.healthy.stddev, 2)}, z ${signed(of.z)}` : "";
      return `${where}: ${number(of.value, 4)}${words(of.unit)}${compared}`;
    },
  });
}

export async function canary(place) {
  const { canaries } = await ask("canaries", { model: place.dataset.model });
  const rounds = (canaries[0]?.replicas ?? []).filter((one) => one.compared && one.layer_ratios.length);
  if (!rounds.length) return say(place, "States of layers come with a server that has the SDK; so far only outputs were compared.");
  const most = Math.max(...rounds.map((one) => one.layer_ratios.length));
  const ratio = (row, column) => rounds[row].layer_ratios[column] ?? null;
  const matrix = rounds.map((_, row) => Array.from({ length: most }, (_, i) => (ratio(row, i) === null ? null : Math.log10(Math.max(ratio(row, i), 0.1)))));
  heat(place, {
    matrix,
    colour: sequential(-1, 2),
    meaning: "distance from the baseline in units of rounding",
    ends: ["0.1", "3", "100 and more"],
    swatch: (share) => sequential(0, 1)(share),
    label: "distance from the baseline by layer",
    rows: rounds.map((one) => one.replica),
    columns: most,
    columnTitle: "layer",
    ticks: everyFew(Array.from({ length: most }, (_, i) => i), Math.max(place.clientWidth / 40, 2)),
    read: (row, column) => `${rounds[row].replica}, layer ${column}: ${ratio(row, column) === null ? "not finite or not measured" : `${number(ratio(row, column))} times rounding`}`,
  });
}

// A matrix of means in, what its colours say: z against the reference, or the range's own median, or the value.
function scaled(name, mean, healthy = []) {
  if (name === "reference" && healthy.some((of) => of?.stddev)) {
    const z = mean.map((row, i) => row.map((value) => (value === null || !healthy[i]?.stddev ? null : (value - healthy[i].mean) / healthy[i].stddev)));
    return zScale(z, Z_LIMIT, "z against the reference", (i) => ` (healthy ${number(healthy[i]?.mean)} ± ${number(healthy[i]?.stddev, 2)})`);
  }
  const isEnough = mean.some((row) => row.filter((value) => value !== null).length >= FEWEST_COLUMNS);
  if (name !== "value" && isEnough) {
    const z = mean.map(againstItself);
    const meaning = name === "range" ? "z against the median of this range" : "no reference yet: z against the median of this range";
    return zScale(z, RANGE_LIMIT, meaning, () => "");
  }
  const known = mean.flat().filter((value) => value !== null);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const colour = sequential(low, high);
  const meaning = name === "value" ? "value" : "too little yet to compare with: value";
  return { matrix: mean, colour, meaning, ends: [number(low), number((low + high) / 2), number(high)], swatch: sequential(0, 1), read: () => "" };
}

function zScale(z, limit, meaning, beside) {
  const colour = diverging(limit);
  return {
    matrix: z,
    colour,
    meaning,
    ends: [`−${limit}`, "0", `+${limit}`],
    swatch: (share) => colour((2 * share - 1) * limit),
    read: (row, column) => `, z ${signed(z[row][column])}${beside(row)}`,
  };
}

function againstItself(row) {
  const known = row.filter((value) => value !== null);
  const middle = median(known);
  const spread = median(known.map((value) => Math.abs(value - middle))) * MAD_TO_SIGMA;
  return row.map((value) => (value === null ? null : spread > 0 ? (value - middle) / spread : Math.sign(value - middle) * RANGE_LIMIT));
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

function everyFew(labels, most) {
  const step = Math.ceil(labels.length / most);
  return labels.map((text, i) => ({ at: i + 0.5, text: String(text) })).filter((_, i) => i % step === 0);
}

function span(segment) {
  const last = segment.token_start + segment.token_count - 1;
  return segment.token_count === 1 ? String(segment.token_start) : `${segment.token_start}–${last}`;
}

function words(unit) {
  return { nat: " nats", rad: " rad", "{token}": " tokens", "{value}": " values" }[unit] ?? "";
}
