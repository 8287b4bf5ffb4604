// Elements made of data. Text is always set as text: nothing that comes from a model, a log or
// a file name is ever read as HTML.

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/**
 * A new element.
 * @param {string} tag - Its name; "svg:" before it makes an SVG element.
 * @param {Object} attributes - "on…" are listeners, true and false set and leave out.
 * @param {...(Node|string)} children
 */
export function make(tag, attributes = {}, ...children) {
  const element = tag.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== "" && child != null));
  return element;
}

/** Put `children` in the place of what is there, keeping nothing. */
export function fill(element, ...children) {
  element.replaceChildren(...children.filter((child) => child !== ""));
}

/** The same, and whoever had the keyboard's focus keeps it: found again by its data-key. */
export function refill(element, ...children) {
  const key = element.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  element.replaceChildren(...children);
  if (key) element.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

/** Show or hide without losing the element's place. */
export function show(element, shown) {
  element.hidden = !shown;
}
