// Moments and durations as people read them. Pure, but for the offset to the server's clock.

const UNITS = [
  ["d", 86_400_000],
  ["h", 3_600_000],
  ["min", 60_000],
  ["s", 1000],
];

let offset_ms = 0;

/** Learn the server's clock from an answer's Date header; a difference below 2 s may be the way of the answer. */
export function learnClock(date_header, now_ms = Date.now()) {
  const told_ms = Date.parse(date_header ?? "");
  if (Number.isNaN(told_ms)) return;
  const difference_ms = told_ms - now_ms;
  offset_ms = Math.abs(difference_ms) < 2000 ? 0 : difference_ms;
}

/** What the server's clock says now, in ms. */
export function serverNow() {
  return Date.now() + offset_ms;
}

/** A duration: "820 ms", "4.2 s", "3 min 20 s", "2 h 5 min", "3 d 4 h". */
export function duration(ms) {
  if (ms < 0) return "0 s";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  const first = UNITS.findIndex(([, size_ms]) => ms >= size_ms);
  const [unit, size_ms] = UNITS[first];
  const text = `${Math.floor(ms / size_ms)} ${unit}`;
  if (first === UNITS.length - 1) return text;
  const [smaller, smaller_ms] = UNITS[first + 1];
  const rest = Math.floor((ms % size_ms) / smaller_ms);
  return rest ? `${text} ${rest} ${smaller}` : text;
}

/** How long ago a moment was, roughly: "now", "12 s", "5 min", "3 h", "2 d". */
export function age(iso, now_ms = serverNow()) {
  const ms = now_ms - Date.parse(iso);
  const found = UNITS.find(([, size_ms]) => ms >= size_ms);
  return found ? `${Math.floor(ms / found[1])} ${found[0]}` : "now";
}

/** The time between two moments, the second one being now if it is null. */
export function between(start, end) {
  return start ? duration((end ? Date.parse(end) : serverNow()) - Date.parse(start)) : "-";
}

/** The time of day where the reader is: "09:21:01.120". */
export function clock(iso) {
  const at = new Date(iso);
  const two = (number) => String(number).padStart(2, "0");
  const ms = String(at.getMilliseconds()).padStart(3, "0");
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${ms}`;
}

/** Day and time where the reader is: "2026-03-01 09:21:01". */
export function moment(iso) {
  if (!iso) return "-";
  const at = new Date(iso);
  const two = (number) => String(number).padStart(2, "0");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock(iso).slice(0, 8)}`;
}

/** A count with separators: "1,000,000". */
export function count(number) {
  return Number(number).toLocaleString("en");
}

/** A size: "812 B", "3.4 KiB", "1.2 MiB". */
export function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  const [unit, unit_bytes] = bytes < 1_048_576 ? ["KiB", 1024] : ["MiB", 1_048_576];
  return `${(bytes / unit_bytes).toFixed(1)} ${unit}`;
}
