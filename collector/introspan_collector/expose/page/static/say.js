// A place on a page and a sentence in, that sentence instead of a chart out.

export function say(place, text) {
  const line = document.createElement("p");
  line.className = "said";
  line.textContent = text;
  delete place.heat;
  place.replaceChildren(line);
}
