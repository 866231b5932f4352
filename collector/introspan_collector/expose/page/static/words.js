// Numbers and times in, what people read of them out.

export function number(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e5 || size < 1e-3 ? value.toExponential(digits - 1).replace("e+", "e") : String(Number(value.toPrecision(digits)));
  return text.replaceAll("-", "−");
}

export function signed(value) {
  return `${value > 0 ? "+" : ""}${number(value)}`;
}

export function time(unixSeconds, rangeSeconds = 0) {
  const text = new Date(unixSeconds * 1000).toISOString();
  if (rangeSeconds > 2 * 86_400) return text.slice(5, rangeSeconds > 10 * 86_400 ? 10 : 16).replace("T", " ");
  return text.slice(11, rangeSeconds && rangeSeconds > 600 ? 16 : 19);
}

// About `wanted` places for the labels of an axis of time, at round times.
export function timeTicks(from, to, wanted) {
  const steps = [10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800];
  // Labels of more than ten minutes have no seconds.
  const least = to - from > 600 ? 60 : 0;
  const step = steps.find((one) => one >= least && (to - from) / one <= wanted) ?? 2_592_000;
  const ticks = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) ticks.push(at);
  return ticks;
}
