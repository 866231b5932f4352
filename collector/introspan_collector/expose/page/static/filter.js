// What somebody types in, only the rows whose name has it out; also after rows were replaced.
import { refreshed } from "./live.js";

export function filter(input) {
  const apply = () => {
    const wanted = input.value.toLowerCase();
    for (const row of document.querySelectorAll(`#${input.dataset.filter} [data-name]`))
      row.hidden = !row.dataset.name.toLowerCase().includes(wanted);
  };
  input.addEventListener("input", apply);
  refreshed.addEventListener("refreshed", apply);
  apply();
}
