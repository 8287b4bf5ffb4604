// Numbers and moments as people write them; sizes are decimal, as in mlxctl.

const UNITS = ["B", "kB", "MB", "GB", "TB"];

/** "274 MB", "1.20 GB", "19.0 GB": three digits. */
export function bytes(value) {
  let size = value;
  let unit = 0;
  while (size >= 999.5 && unit < UNITS.length - 1) {
    size /= 1000;
    unit += 1;
  }
  if (unit === 0) return `${Math.round(size)} B`;
  const digits = size < 9.995 ? 2 : size < 99.95 ? 1 : 0;
  return `${size.toFixed(digits)} ${UNITS[unit]}`;
}

/** "450 ms", "3.2 s", "4 min", "2 h 5 min", "3 d". */
export function duration(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds < 9.95 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} d`;
}

/** The clock time, with the date where it is not today's. */
export function moment(ms) {
  const then = new Date(ms);
  const time = then.toLocaleTimeString([], { hour12: false });
  if (then.toDateString() === new Date().toDateString()) return time;
  const date = then.toLocaleDateString([], { month: "short", day: "numeric" });
  return `${date} ${time}`;
}

export const count = (number) => number.toLocaleString("en-US");

/** "1 record", "2 records". */
export const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
