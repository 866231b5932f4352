// A place on a page in, the chart that it names out: asked for when it is seen, and again while it is.
import { canary, heads, layers, tokens } from "./heatmaps.js";
import { drift, lines } from "./lines.js";
import { requests } from "./requests.js";
import { say } from "./say.js";

const CHARTS = { layers, heads, tokens, canary, lines, drift, requests };
const OFTEN_SECONDS = 10;

export function draw(place) {
  const chart = CHARTS[place.dataset.chart];
  let timer = 0;
  let shown = false;
  const again = async () => {
    clearTimeout(timer);
    if (!shown || document.hidden) return;
    try {
      await chart(place);
      place.dataset.state = "drawn";
    } catch (error) {
      if (!place.dataset.state) say(place, `It cannot be shown: ${error.message}`);
    }
    if (seconds(place)) timer = setTimeout(again, seconds(place) * 1000);
  };
  say(place, "…");
  delete place.dataset.state;
  new IntersectionObserver((entries) => {
    const before = shown;
    shown = entries.at(-1).isIntersecting;
    if (shown && !before) again();
  }, { rootMargin: "200px" }).observe(place);
  document.addEventListener("visibilitychange", again);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
}

// A request does not change; of a long range the last step is not news every ten seconds.
function seconds(place) {
  if (place.dataset.chart === "tokens") return 0;
  return Math.max(OFTEN_SECONDS, Number(place.dataset.rangeSeconds ?? 0) / 720);
}
