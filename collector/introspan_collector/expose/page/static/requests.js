// A place on a page in, the newest requests of a model out, each a link to its page.
import { ask, who } from "./api.js";
import { say } from "./say.js";
import { time } from "./words.js";

const SHOWN = 12;
const HEADINGS = ["Request", "Time", "Replica", "Prompt tokens", "Segments", "Trace"];
const NUMBERS = new Set(["Prompt tokens", "Segments"]);

export async function requests(place) {
  const { model, adapter, replica } = who(place.dataset);
  const { requests: found } = await ask("requests", { model, adapter, replica, limit: SHOWN });
  if (!found.length) return say(place, "None yet.");
  const table = document.createElement("table");
  table.className = "cards";
  const headings = HEADINGS.map((text) => Object.assign(cell("th", text), { scope: "col", className: NUMBERS.has(text) ? "n" : "" }));
  table.createTHead().append(row(headings));
  table.createTBody().append(...found.map((one) => row([link(one), ...facts(one)])));
  // What somebody is about to follow stays where it is.
  if (place.contains(document.activeElement)) return undefined;
  place.replaceChildren(table);
  return undefined;
}

function facts(one) {
  const values = [time(one.time), one.replica, one.prompt_tokens, one.segments, one.trace_id || "none sent"];
  return values.map((text, i) => {
    const node = cell("td", text);
    node.dataset.label = HEADINGS[i + 1];
    if (NUMBERS.has(HEADINGS[i + 1])) node.className = "n";
    const { traceUrl } = document.body.dataset;
    if (HEADINGS[i + 1] === "Trace" && one.trace_id && traceUrl) {
      const to = { href: traceUrl.replace("{trace_id}", one.trace_id), rel: "noreferrer", textContent: text };
      node.replaceChildren(Object.assign(document.createElement("a"), to));
    }
    return node;
  });
}

function link(one) {
  const heading = cell("th", "");
  const anchor = document.createElement("a");
  // Around when it was measured: the archive is looked through hour by hour.
  const around = { id: one.request_id, from: Math.floor(one.time - 3600), to: Math.ceil(one.time + 3600) };
  anchor.href = `request?${new URLSearchParams(around)}`;
  anchor.textContent = one.request_id;
  heading.append(anchor);
  heading.scope = "row";
  return heading;
}

function row(cells) {
  const line = document.createElement("tr");
  line.append(...cells);
  return line;
}

function cell(name, text) {
  return Object.assign(document.createElement(name), { textContent: text });
}
