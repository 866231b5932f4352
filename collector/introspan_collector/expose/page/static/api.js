// A question of the JSON API in, its answer out, or an Error with the remedy that it gives.

export async function ask(path, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null);
  const answer = await fetch(`api/v1/${path}?${new URLSearchParams(given)}`);
  const found = await answer.json().catch(() => ({ error: { remedy: `answered ${answer.status}` } }));
  if (!answer.ok) throw new Error(found.error.remedy);
  return found;
}

// The range that a place on a page shows: up to a time, or up to now.
export function range({ rangeSeconds, to }) {
  const end = Number(to) || Date.now() / 1000;
  return { from: end - Number(rangeSeconds), to: end };
}

// Which series a place on a page is about: an empty adapter is none, an empty replica every one.
export function who({ model, adapter, replica, signal }) {
  return { model, adapter, replica: replica || undefined, signal };
}
