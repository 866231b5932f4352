// The incidents that a page shows in, when they opened out: charts over time draw a line there.

export function opened(from, to) {
  const times = [...document.querySelectorAll("#incidents .incident time")].map((one) => Date.parse(one.dateTime) / 1000);
  return times.filter((at) => at > from && at < to);
}
