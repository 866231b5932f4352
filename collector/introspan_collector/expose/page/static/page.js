// A page's HTML in, the same alive out: every part of it is a file of its own.
import { draw } from "./charts.js";
import { acknowledge } from "./acknowledge.js";
import { filter } from "./filter.js";
import { live } from "./live.js";

document.documentElement.classList.add("scripted");
for (const form of document.querySelectorAll("form[data-submit-on-change]"))
  form.addEventListener("change", () => form.requestSubmit());
for (const form of document.querySelectorAll("form[data-acknowledge]")) acknowledge(form);
for (const input of document.querySelectorAll("input[data-filter]")) filter(input);
for (const chart of document.querySelectorAll("[data-chart]")) draw(chart);
live();

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  document.getElementById("find").focus();
});
