// One colour a model, the same wherever it is drawn.

const COLORS = 8;
const given = new Map();

/** The colour's number, 1 to 8, of the style sheet's --m1 to --m8. */
export function colorOf(name) {
  if (!given.has(name)) {
    const taken = new Set(given.values());
    let color = hash(name) % COLORS;
    for (let tries = 0; tries < COLORS && taken.has(color + 1); tries += 1) {
      color = (color + 1) % COLORS;
    }
    given.set(name, color + 1);
  }
  return given.get(name);
}

function hash(text) {
  let value = 7;
  for (const character of text) value = (value * 31 + character.codePointAt(0)) >>> 0;
  return value;
}
