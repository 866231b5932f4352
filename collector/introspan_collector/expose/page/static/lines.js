// Places on pages in, their lines over time out: what each asks the API, and what is drawn beside it.
import { ask, range, who } from "./api.js";
import { MOST_LINES } from "./colours.js";
import { plot } from "./plot.js";
import { say } from "./say.js";

const MOST_POINTS = 240;
const STEPS = [60, 120, 300, 600, 1200, 1800, 3600, 7200, 14_400, 21_600, 43_200];

// A signal: one line a replica, and the band in which it is while all is well.
export async function lines(place) {
  const { rangeSeconds, signal, unit, mean, stddev } = place.dataset;
  const step = STEPS.find((one) => Number(rangeSeconds) / one <= MOST_POINTS) ?? 86_400;
  const { from, to } = range(place.dataset);
  const { series: found } = await ask("query", { ...who(place.dataset), from, to, step });
  if (!found.length) return say(place, "Not measured in this range.");
  const more = found.length - MOST_LINES;
  const series = found.slice(0, MOST_LINES).map(({ replica, points }, colour) => ({
    name: replica,
    said: found.length > 1,
    colour,
    points: points.map(([at, value]) => [at, value]),
  }));
  const [middle, spread] = [Number(mean), Number(stddev)];
  const band = mean === undefined ? null : { middle, low: middle - spread, high: middle + spread };
  const note = more > 0 ? `${more} more replicas are not drawn` : "";
  return plot(place, { series, band, from, to, step, unit, note, label: `${signal} over time` });
}

// How far requests are from the reference, by kind of row, and dashed what chance alone explains.
export async function drift(place) {
  const { model, adapter } = who(place.dataset);
  const { from, to } = range(place.dataset);
  const { kinds } = await ask("drift", { model, adapter, from, to });
  const found = kinds.filter((one) => one.points.length);
  if (!found.length) return say(place, "Nothing in this range: there is a point each minute from the first reference on, and a day of them is kept.");
  const series = found.flatMap(({ kind, points }, colour) => [
    { name: kind, colour, points: points.map(([at, distance]) => [at, distance]) },
    { name: "of at most", colour, dashed: true, points: points.map(([at, , threshold]) => [at, threshold]) },
  ]);
  const step = Math.max(60, (to - from) / MOST_POINTS);
  return plot(place, { series, band: null, from, to, step, unit: "", label: "distance of requests from the reference over time" });
}
