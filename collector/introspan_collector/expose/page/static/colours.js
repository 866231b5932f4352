// Values in, colours out. Both scales keep their order in grey and for every kind of colour vision.

// cividis (Nuñez, Anderton & Renslow, arXiv 1712.01662), at ten even places.
const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];
// Blue is below, orange above; the middle is the paper, so that what is healthy is quiet.
const Z_LIGHT = ["#08306b", "#2b6cb0", "#7fb2dd", "#cbdfef", "#ecebe8", "#f8d8b2", "#f3a55a", "#cc5f14", "#7f2704"];
const Z_DARK = ["#a6d6ff", "#5aa7ec", "#3577b5", "#35547a", "#3a424e", "#63472f", "#ab6320", "#f0872b", "#ffc58a"];

export const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;

export function sequential(low, high) {
  const span = high - low || 1;
  return (value) => between(CIVIDIS, (value - low) / span);
}

export function diverging(limit) {
  const stops = isDark() ? Z_DARK : Z_LIGHT;
  return (value) => between(stops, (value + limit) / (2 * limit));
}

function between(stops, place) {
  const at = Math.min(Math.max(place, 0), 1) * (stops.length - 1);
  const first = Math.min(Math.floor(at), stops.length - 2);
  const [from, to] = [stops[first], stops[first + 1]].map(parts);
  return `rgb(${from.map((part, i) => Math.round(part + (to[i] - part) * (at - first))).join(" ")})`;
}

function parts(hex) {
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

// Lines of replicas: Okabe & Ito, which everybody can tell apart; on dark paper their brighter ones.
const ON_LIGHT = ["#0072b2", "#d55e00", "#009e73", "#b3589a", "#b57b00", "#56b4e9", "#6b717c", "#8c7a00"];
const ON_DARK = ["#56b4e9", "#e69f00", "#3fd0a4", "#e59cc7", "#f0e442", "#ff8c5a", "#b4bac4", "#a6d6ff"];

export const MOST_LINES = ON_LIGHT.length;

export const lineColour = (number) => (isDark() ? ON_DARK : ON_LIGHT)[number];
