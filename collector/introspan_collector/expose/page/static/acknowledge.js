// A form in, the call that acknowledges an incident out, with what was answered in words.
import { refresh } from "./live.js";

export function acknowledge(form) {
  const said = form.querySelector("output");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    try {
      const { text, failed } = await call(form);
      said.textContent = text;
      said.classList.toggle("failed", failed);
    } catch (error) {
      said.textContent = `The collector did not answer: ${error.message}`;
      said.classList.add("failed");
    } finally {
      button.disabled = false;
    }
    await refresh();
  });
}

async function call(form) {
  const given = new FormData(form);
  const headers = { "content-type": "application/json" };
  if (given.get("token")) headers.authorization = `Bearer ${given.get("token")}`;
  const body = {
    by: given.get("by"),
    comment: given.get("comment"),
    accept_as_class: given.has("accept_as_class"),
    force: given.has("force"),
  };
  const address = `api/v1/alarms/${encodeURIComponent(form.dataset.acknowledge)}/acknowledge`;
  const answer = await fetch(address, { method: "POST", headers, body: JSON.stringify(body) });
  const found = await answer.json();
  if (answer.ok) return { text: `Acknowledged.${found.accepted ? ` ${found.accepted}` : ""}`, failed: false };
  // What something speaks against can be done all the same: the answer says what that is.
  if (answer.status === 409) form.querySelector("[name=force]").closest("label").hidden = false;
  return { text: `Not done: ${found.error.remedy}`, failed: true };
}
