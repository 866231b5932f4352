// The same page again in, its live parts replaced out: no state but what is on the screen.
const SILENT_MILLISECONDS = 15_000;

export const refreshed = new EventTarget();

let lastAnswer = Date.now();
let timer = 0;

export function live() {
  const seconds = Number(document.body.dataset.refreshSeconds);
  const again = () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      await refresh();
      again();
    }, seconds * 1000);
  };
  document.addEventListener("visibilitychange", async () => {
    clearTimeout(timer);
    if (document.hidden) return;
    await refresh();
    again();
  });
  again();
}

export async function refresh() {
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" }, signal: AbortSignal.timeout(10_000) });
    if (!answer.ok) throw new Error(`answered ${answer.status}`);
    exchange(new DOMParser().parseFromString(await answer.text(), "text/html"));
    lastAnswer = Date.now();
  } catch (error) {
    if (Date.now() - lastAnswer > SILENT_MILLISECONDS) lost(error);
    return;
  }
  document.getElementById("lost").hidden = true;
  refreshed.dispatchEvent(new Event("refreshed"));
}

function lost(error) {
  const line = document.getElementById("lost");
  const text = `The collector has not answered for ${Math.round((Date.now() - lastAnswer) / 1000)} s (${error.message}): what is shown is old.`;
  if (line.hidden || !line.textContent) line.textContent = text;
  line.hidden = false;
}

function exchange(fresh) {
  document.title = fresh.title;
  for (const old of document.querySelectorAll("[data-live]")) {
    const now = fresh.getElementById(old.id);
    if (!now || now.innerHTML === old.innerHTML) continue;
    const focus = old.contains(document.activeElement) ? place(document.activeElement, old) : null;
    const isNews = old.querySelectorAll(".incident").length < now.querySelectorAll(".incident").length;
    const opened = [...old.querySelectorAll("details[open]")].map((one) => one.dataset.key);
    old.replaceChildren(...document.adoptNode(now).childNodes);
    for (const one of old.querySelectorAll("details")) one.open = opened.includes(one.dataset.key);
    old.classList.toggle("changed", isNews);
    if (focus) find(focus, old)?.focus({ preventScroll: true });
  }
}

// Where the focus was: by link, or by number among what can have it.
function place(element, region) {
  return { href: element.getAttribute("href"), number: able(region).indexOf(element) };
}

function find({ href, number }, region) {
  const all = able(region);
  return all.find((one) => href && one.getAttribute("href") === href) ?? all[number];
}

function able(region) {
  return [...region.querySelectorAll("a[href], button, input, select, summary")];
}
