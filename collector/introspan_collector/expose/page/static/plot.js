// Series over time and what their lines mean in, a picture out that can be read by eye, by pointer and by keyboard.
import { lineColour } from "./colours.js";
import { opened } from "./marks.js";
import { number, time, timeTicks } from "./words.js";

// In pixels where the page's font has 15 of them; on a wall it has more.
const [HEIGHT, LEFT, RIGHT, BOTTOM, TOP] = [130, 44, 4, 18, 6];
const LEAST_WIDTH = 200;
const GAP_STEPS = 2.5;

// series: {name, points: [[time, value], …] in order, colour: its number, dashed}; step: seconds between points;
// band: {middle, low, high} where all is well, or nothing; label: what it is; note: said after the newest values.
export function plot(place, of) {
  const axes = scales(place, of);
  const svg = picture(of, axes);
  const reading = Object.assign(document.createElement("output"), { className: "reading small" });
  const cursor = svg.appendChild(make("path", { class: "cursor", d: "" }));
  const point = (at) => {
    place.readAt = at;
    cursor.setAttribute("d", at === null ? "" : `M${axes.x(at)} ${axes.top}V${axes.base}`);
    tell(reading, of, at);
  };
  follow(svg, of, axes, () => place.readAt, point);
  const hasFocus = place.contains(document.activeElement);
  const readAt = hasFocus || place.matches(":hover") ? (place.readAt ?? null) : null;
  place.replaceChildren(svg, reading);
  if (hasFocus) svg.focus({ preventScroll: true });
  point(readAt);
}

function scales(place, { series, band, from, to }) {
  const scale = parseFloat(getComputedStyle(document.documentElement).fontSize) / 15;
  const [width, height] = [Math.max(place.clientWidth, LEAST_WIDTH), HEIGHT * scale];
  const [left, right, top, base] = [LEFT * scale, width - RIGHT * scale, TOP * scale, height - BOTTOM * scale];
  const values = series.flatMap((one) => one.points.map((point) => point[1])).filter((value) => value !== null);
  const all = band ? [...values, band.low, band.high] : values.length ? values : [0];
  let [low, high] = [Math.min(...all), Math.max(...all)];
  const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  [low, high] = [low < 0 || low > room ? low - room : 0, high + room];
  return {
    width, height, left, right, top, base, low, high, scale,
    x: (at) => left + ((at - from) / (to - from)) * (right - left),
    y: (value) => top + (1 - (value - low) / (high - low)) * (base - top),
    at: (x) => from + ((x - left) / (right - left)) * (to - from),
  };
}

function picture(of, axes) {
  const { width, height, left, right, top, base, x, y } = axes;
  const last = of.series.map((one) => `${one.name} ${number(one.points.at(-1)[1], 4)}`).join(", ");
  const label = `${of.label}, last: ${[last, of.unit].filter(Boolean).join(" ")}. Arrow keys move in time.`;
  const svg = make("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: "0", "aria-label": label });
  if (of.band) {
    svg.append(make("rect", { class: "band", x: left, width: right - left, y: y(of.band.high), height: Math.max(y(of.band.low) - y(of.band.high), 0.5) }));
    svg.append(make("path", { class: "middle", d: `M${left} ${y(of.band.middle)}H${right}` }));
  }
  grid(svg, of, axes);
  for (const at of opened(of.from, of.to)) svg.append(make("path", { class: "mark", d: `M${x(at)} ${top}V${base}` }));
  for (const one of of.series) svg.append(...trace(one, of, axes));
  return svg;
}

function grid(svg, { from, to }, { low, high, left, right, top, base, height, scale, x, y }) {
  svg.append(make("path", { class: "axis", d: `M${left} ${top}V${base}H${right}` }));
  svg.append(text(left - 5 * scale, y(low), "end", number(low)), text(left - 5 * scale, y(high) + 8 * scale, "end", number(high)));
  for (const at of timeTicks(from, to, Math.max((right - left) / (90 * scale), 2)))
    if (x(at) > left + 14 * scale && x(at) < right - 14 * scale) svg.append(text(x(at), height - 4 * scale, "middle", time(at, to - from)));
}

// A gap where nothing was measured stays a gap; a point between two gaps is a dot.
function trace({ points, colour, dashed }, { from, step }, { x, y, scale }) {
  const known = points.filter(([at, value]) => value !== null && at >= from);
  const isApart = (i) => !known[i] || !known[i + 1] || known[i + 1][0] - known[i][0] > GAP_STEPS * step;
  const d = known.map(([at, value], i) => `${isApart(i - 1) ? "M" : "L"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const dots = known.filter((_, i) => isApart(i - 1) && isApart(i));
  return [
    make("path", { d, class: dashed ? "dashed" : "line", stroke: lineColour(colour) }),
    ...dots.map(([at, value]) => make("circle", { cx: x(at), cy: y(value), r: 2.5 * scale, fill: lineColour(colour) })),
  ];
}

const MOVES = { ArrowLeft: -1, ArrowRight: 1 };

function follow(svg, of, axes, readAt, point) {
  const times = [...new Set(of.series.flatMap((one) => one.points.map(([at]) => at)))].filter((at) => at >= of.from).sort((a, b) => a - b);
  if (!times.length) return;
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    point(nearest(times, axes.at(((event.clientX - box.left) / box.width) * axes.width)));
  });
  svg.addEventListener("pointerleave", () => point(null));
  svg.addEventListener("blur", () => point(null));
  svg.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return point(null);
    const now = readAt() ?? null;
    const place = now === null ? times.length : times.indexOf(nearest(times, now));
    const to = { Home: 0, End: times.length - 1 }[event.key] ?? place + (MOVES[event.key] ?? NaN);
    if (Number.isNaN(to)) return undefined;
    event.preventDefault();
    return point(times[Math.min(Math.max(to, 0), times.length - 1)]);
  });
}

function nearest(times, at) {
  return times.reduce((best, one) => (Math.abs(one - at) < Math.abs(best - at) ? one : best));
}

// One value of each series, beside the colour of its line.
function tell(reading, of, at) {
  const parts = of.series.flatMap((one) => {
    const sign = Object.assign(document.createElement("span"), { textContent: one.dashed ? "┅ " : "━ " });
    sign.style.color = lineColour(one.colour);
    return [sign, `${one.said === false ? "" : `${one.name} `}${number(value(one, at, of.step), 4)}  `];
  });
  const when = at === null ? "last" : time(at, of.to - of.from);
  reading.replaceChildren(`${when}: `, ...parts, `${of.unit}${at === null && of.note ? `, ${of.note}` : ""}`);
}

function value({ points }, at, step) {
  if (at === null) return points.at(-1)[1];
  const best = points.reduce((found, point) => (Math.abs(point[0] - at) < Math.abs(found[0] - at) ? point : found));
  return Math.abs(best[0] - at) <= GAP_STEPS * step ? best[1] : null;
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
