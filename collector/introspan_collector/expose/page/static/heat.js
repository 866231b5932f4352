// A matrix and the meaning of its cells in, a heatmap out that can be read by eye, by pointer and by keyboard.

// In pixels where the page's font has 15 of them; on a wall it has more.
const [TEXT, MARGIN_BOTTOM, TITLE] = [12, 20, 14];
const HATCH = 6;

// rows: labels, the first is drawn lowest; matrix: [row][column], null = not measured; colour: value → colour;
// ticks: {at: column, text}; read(row, column): the words of a cell; ends, swatch: the legend.
export function heat(place, of) {
  const parts = place.heat ?? build(place);
  parts.of = of;
  parts.canvas.setAttribute("aria-label", `${of.label}. Arrow keys move from cell to cell.`);
  legend(parts, of);
  paint(parts);
}

function build(place) {
  const [canvas, reading, legend] = [document.createElement("canvas"), document.createElement("output"), document.createElement("div")];
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  reading.className = "reading";
  legend.className = "legend";
  place.replaceChildren(reading, canvas, legend);
  const parts = { place, canvas, reading, legend, cell: null, of: null };
  place.heat = parts;
  canvas.addEventListener("pointermove", (event) => point(parts, at(parts, event)));
  canvas.addEventListener("pointerdown", (event) => point(parts, at(parts, event)));
  canvas.addEventListener("pointerleave", () => point(parts, null));
  canvas.addEventListener("blur", () => point(parts, null));
  canvas.addEventListener("keydown", (event) => step(parts, event));
  new ResizeObserver(() => parts.of && paint(parts)).observe(place);
  return parts;
}

function geometry({ place, of, canvas }) {
  const style = getComputedStyle(place);
  const scale = parseFloat(getComputedStyle(document.documentElement).fontSize) / 15;
  const context = canvas.getContext("2d");
  const font = `${TEXT * scale}px ${style.fontFamily}`;
  context.font = font;
  const left = Math.ceil(Math.max(...of.rows.map((text) => context.measureText(short(text)).width), 28)) + 12;
  const width = place.clientWidth;
  const inner = Math.min(width - left - 8, (of.widest ?? 1e6) * scale * of.columns);
  const rowHeight = Math.max(9, Math.min((of.tallest ?? 26) * scale, (340 * scale) / of.rows.length));
  return { left, width, inner, rowHeight, height: rowHeight * of.rows.length, ink: style.color, context, scale, font };
}

function short(text) {
  return text.length > 24 ? `${text.slice(0, 22)}…` : text;
}

function paint(parts) {
  const { canvas, of, cell } = parts;
  const { left, width, inner, rowHeight, height, ink, context, scale, font } = geometry(parts);
  if (width <= left + 8) return;
  const ratio = devicePixelRatio || 1;
  const whole = height + (MARGIN_BOTTOM + (of.columnTitle ? TITLE : 0)) * scale;
  canvas.width = width * ratio;
  canvas.height = whole * ratio;
  canvas.style.height = `${whole}px`;
  context.scale(ratio, ratio);
  const missing = hatch(context, ink);
  const columnWidth = inner / of.columns;
  for (const [row, values] of of.matrix.entries()) {
    const top = height - (row + 1) * rowHeight;
    for (const [column, value] of values.entries()) {
      context.fillStyle = value === null ? missing : of.colour(value);
      const x = left + column * columnWidth;
      // Half a pixel wider, so that no line of paper shows between neighbours.
      context.fillRect(x, top, Math.min(columnWidth + 0.5, left + inner - x), rowHeight - 1);
    }
  }
  for (const mark of of.marks ?? []) flag(context, left + mark * columnWidth, height, ink);
  labels(context, of, { left, inner, rowHeight, height, columnWidth, ink, whole, scale, font });
  if (cell) {
    context.strokeStyle = ink;
    context.lineWidth = 2;
    context.strokeRect(left + cell.column * columnWidth, height - (cell.row + 1) * rowHeight, Math.max(columnWidth, 2), rowHeight - 1);
  }
}

function labels(context, of, { left, inner, rowHeight, height, columnWidth, ink, whole, scale, font }) {
  context.fillStyle = ink;
  context.font = font;
  context.textBaseline = "middle";
  context.textAlign = "right";
  const every = Math.ceil((13 * scale) / rowHeight);
  for (const [row, text] of of.rows.entries())
    if (row % every === 0) context.fillText(short(text), left - 6, height - (row + 0.5) * rowHeight);
  context.textBaseline = "top";
  context.textAlign = "center";
  for (const tick of of.ticks) {
    const x = left + tick.at * columnWidth;
    if (x < left || x > left + inner) continue;
    const half = context.measureText(tick.text).width / 2;
    context.fillText(tick.text, Math.min(Math.max(x, left + half), left + inner - half), height + 4);
    context.fillRect(x, height, 1, 3);
  }
  if (of.columnTitle) context.fillText(of.columnTitle, left + inner / 2, whole - TITLE * scale);
}

// When an incident opened.
function flag(context, x, height, ink) {
  context.save();
  context.strokeStyle = context.fillStyle = ink;
  context.setLineDash([4, 3]);
  context.beginPath();
  context.moveTo(x, 0);
  context.lineTo(x, height);
  context.stroke();
  context.beginPath();
  context.moveTo(x - 6, 0);
  context.lineTo(x + 6, 0);
  context.lineTo(x, 9);
  context.fill();
  context.restore();
}

// What is not measured is hatched: no colour of any scale.
function hatch(context, ink) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = HATCH;
  const pen = tile.getContext("2d");
  pen.strokeStyle = ink;
  pen.globalAlpha = 0.18;
  pen.beginPath();
  pen.moveTo(0, HATCH);
  pen.lineTo(HATCH, 0);
  pen.stroke();
  return context.createPattern(tile, "repeat");
}

function legend(parts, of) {
  const [swatch, meaning] = [document.createElement("canvas"), document.createElement("span")];
  swatch.width = 176;
  swatch.height = 1;
  const pen = swatch.getContext("2d");
  for (let x = 0; x < swatch.width; x += 1) {
    pen.fillStyle = of.swatch(x / (swatch.width - 1));
    pen.fillRect(x, 0, 1, 1);
  }
  const [low, , high] = of.ends.map((text) => Object.assign(document.createElement("span"), { textContent: text }));
  meaning.textContent = `${of.meaning}${of.rowTitle ? `; rows are ${of.rowTitle}s, the first below` : ""}; hatched: not measured${of.marks?.length ? "; ▼: an incident opened" : ""}${of.note ? `; ${of.note}` : ""}`;
  parts.legend.replaceChildren(low, swatch, high, meaning);
  const { cell } = parts;
  const isThere = cell && cell.row < of.rows.length && cell.column < of.columns;
  if (!isThere) parts.cell = null;
  parts.reading.textContent = isThere ? of.read(cell.row, cell.column) : "";
}

function at(parts, event) {
  const { left, inner, rowHeight, height } = geometry(parts);
  const box = parts.canvas.getBoundingClientRect();
  const column = Math.floor(((event.clientX - box.left - left) / inner) * parts.of.columns);
  const row = Math.floor((height - (event.clientY - box.top)) / rowHeight);
  const isInside = column >= 0 && column < parts.of.columns && row >= 0 && row < parts.of.rows.length;
  return isInside ? { row, column } : null;
}

function point(parts, cell) {
  if (cell?.row === parts.cell?.row && cell?.column === parts.cell?.column) return;
  parts.cell = cell;
  parts.reading.textContent = cell ? parts.of.read(cell.row, cell.column) : "";
  paint(parts);
}

const MOVES = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, 0], ArrowDown: [-1, 0] };

function step(parts, event) {
  if (event.key === "Escape") return point(parts, null);
  const last = { row: parts.of.rows.length - 1, column: parts.of.columns - 1 };
  if (event.key === "Home" || event.key === "End") {
    event.preventDefault();
    return point(parts, { row: parts.cell?.row ?? 0, column: event.key === "Home" ? 0 : last.column });
  }
  const move = MOVES[event.key];
  if (!move) return undefined;
  event.preventDefault();
  const { row, column } = parts.cell ?? { row: 0, column: last.column + (move[1] ? -move[1] : 0) };
  const within = (value, most) => Math.min(Math.max(value, 0), most);
  return point(parts, { row: within(row + (parts.cell ? move[0] : 0), last.row), column: within(column + move[1], last.column) });
}
