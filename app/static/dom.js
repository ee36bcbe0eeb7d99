// Elements made from a tag, properties and children.
//
// Owns: the only way in which this page makes elements. Never: parses markup; a string always becomes a text node, so
// that whatever a job says stays text.

const SVG = "http://www.w3.org/2000/svg";

/** An element. `props`: `onclick`-like functions are listeners, `dataset` and `class` as named, the rest attributes. */
export function h(tag, props = {}, ...children) {
  return furnish(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function svg(tag, props = {}, ...children) {
  return furnish(document.createElementNS(SVG, tag), props, children);
}

function furnish(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...present(children));
  return element;
}

/** Replace what is inside an element. */
export function fill(element, ...children) {
  element.replaceChildren(...present(children));
  return element;
}

/** Set an element's text, touching the page only when it differs. */
export function setText(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

/** Show or hide an element. */
export function show(element, visible) {
  element.hidden = !visible;
}

/** A button with a text. */
export function button(text, onclick, props = {}) {
  return h("button", { type: "button", onclick, ...props }, text);
}

function present(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}
