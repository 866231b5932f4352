// A place on a page in, a signal over time out: one line a replica, and the band in which it is while all is well.
import { ask, range, who } from "./api.js";
import { lineColour, MOST_LINES } from "./colours.js";
import { opened } from "./marks.js";
import { say } from "./say.js";
import { number, time, timeTicks } from "./words.js";

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [400, 130, 44, 18, 6];
const MOST_POINTS = 240;
const STEPS = [60, 120, 300, 600, 1200, 1800, 3600, 7200, 14_400, 21_600, 43_200];

export async function lines(place) {
  const seconds = Number(place.dataset.rangeSeconds);
  const step = STEPS.find((one) => seconds / one <= MOST_POINTS) ?? 86_400;
  const asked = { ...who(place.dataset), ...range(place.dataset), step };
  const { series: mine } = await ask("query", asked);
  if (!mine.length) return say(place, "Not measured in this range.");
  const shown = mine.slice(0, MOST_LINES);
  const axes = scales(shown, place.dataset, asked.from, asked.to);
  const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": said(place, shown) });
  if (axes.band) band(svg, axes);
  grid(svg, axes, seconds);
  for (const at of opened(axes.from, axes.to)) svg.append(make("path", { class: "mark", d: `M${axes.x(at)} ${TOP}V${HEIGHT - BOTTOM}` }));
  shown.forEach((one, i) => trace(svg, one.points, axes, lineColour(i), step));
  const reading = document.createElement("output");
  reading.className = "reading small";
  follow(svg, reading, shown, axes, place.dataset.unit, mine.length - shown.length);
  place.replaceChildren(svg, reading);
  tellLast(reading, shown, place.dataset.unit, mine.length - shown.length);
  return undefined;
}

function scales(shown, { mean, stddev }, from, to) {
  const values = shown.flatMap((one) => one.points.map((point) => point[1]));
  const band = mean === undefined ? null : { middle: Number(mean), low: Number(mean) - Number(stddev), high: Number(mean) + Number(stddev) };
  const all = band ? [...values, band.low, band.high] : values;
  let [low, high] = [Math.min(...all), Math.max(...all)];
  const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  [low, high] = [low < 0 || low > room ? low - room : 0, high + room];
  return {
    band,
    low,
    high,
    from,
    to,
    x: (at) => LEFT + ((at - from) / (to - from)) * (WIDTH - LEFT - 4),
    y: (value) => TOP + (1 - (value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM),
  };
}

function band(svg, { band: { middle, low, high }, y }) {
  svg.append(make("rect", { class: "band", x: LEFT, width: WIDTH - LEFT - 4, y: y(high), height: Math.max(y(low) - y(high), 0.5) }));
  svg.append(make("path", { class: "middle", d: `M${LEFT} ${y(middle)}H${WIDTH - 4}` }));
}

function grid(svg, { low, high, from, to, x, y }, seconds) {
  svg.append(make("path", { class: "axis", d: `M${LEFT} ${TOP}V${HEIGHT - BOTTOM}H${WIDTH - 4}` }));
  svg.append(text(LEFT - 5, y(low), "end", number(low)), text(LEFT - 5, y(high) + 8, "end", number(high)));
  for (const at of timeTicks(from, to, 4))
    if (x(at) > LEFT + 14 && x(at) < WIDTH - 18) svg.append(text(x(at), HEIGHT - 4, "middle", time(at, seconds)));
}

// A gap where nothing was measured stays a gap.
function trace(svg, points, { x, y, from }, colour, step) {
  let d = "";
  let last = -Infinity;
  for (const [at, mean] of points) {
    if (mean === null || at < from) continue;
    d += `${at - last > 2.5 * step ? "M" : "L"}${x(at).toFixed(1)} ${y(mean).toFixed(1)}`;
    if (at - last > 2.5 * step) d += "h.01";
    last = at;
  }
  svg.append(make("path", { d, stroke: colour, "stroke-linecap": "round" }));
}

function follow(svg, reading, shown, { from, to }, unit, more) {
  const cursor = make("path", { class: "cursor", d: "" });
  svg.append(cursor);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = from + (((event.clientX - box.left) / box.width) * WIDTH - LEFT) / (WIDTH - LEFT - 4) * (to - from);
    const near = shown.map((one) => nearest(one.points, at));
    const x = LEFT + ((near[0][0] - from) / (to - from)) * (WIDTH - LEFT - 4);
    cursor.setAttribute("d", `M${x} ${TOP}V${HEIGHT - BOTTOM}`);
    tell(reading, time(near[0][0], to - from), shown, near.map((point) => point[1]), unit);
  });
  svg.addEventListener("pointerleave", () => {
    cursor.setAttribute("d", "");
    tellLast(reading, shown, unit, more);
  });
}

function nearest(points, at) {
  return points.reduce((best, point) => (Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best));
}

// One value a replica, each beside the colour of its line.
function tell(reading, when, shown, values, unit, more = 0) {
  const parts = shown.flatMap((one, i) => {
    const sign = Object.assign(document.createElement("span"), { textContent: "━ " });
    sign.style.color = lineColour(i);
    return [sign, `${shown.length > 1 ? `${one.replica} ` : ""}${number(values[i], 4)}  `];
  });
  reading.replaceChildren(`${when}: `, ...parts, `${unit}${more > 0 ? `, ${more} more replicas are not drawn` : ""}`);
}

function tellLast(reading, shown, unit, more) {
  tell(reading, "last", shown, shown.map((one) => one.points.at(-1)[1]), unit, more);
}

function said(place, shown) {
  const last = shown.map((one) => `${one.replica} ${number(one.points.at(-1)[1], 4)}`);
  return `${place.dataset.signal} over time, last ${last.join(", ")} ${place.dataset.unit}`;
}

function text(x, y, anchor, content) {
  const node = make("text", { x, y, "text-anchor": anchor });
  node.textContent = content;
  return node;
}

function make(name, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}
