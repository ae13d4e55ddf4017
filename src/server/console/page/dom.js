// Builds elements. Text only ever becomes a text node: markup of others stays text.

/** An element: `h("p", {class: "note"}, "text", child)`. Functions are listeners; `null` and `false` leave a part out. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter(isThere).map(node));
  return element;
}

const isThere = (child) => child !== null && child !== undefined && child !== false;
const node = (child) => (child instanceof Node ? child : document.createTextNode(visible(String(child))));

/** Puts children into the place of what an element has. */
export function put(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter(isThere).map(node));
}

/** Text in which nothing is invisible: controls, direction marks and the like are spelled out. */
export function visible(text) {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (character) =>
    character === "\n" ? character : `\\u{${character.codePointAt(0).toString(16)}}`);
}

/** A message in which what stands between backticks is code. */
export function prose(text) {
  return text.split("`").map((part, at) => (at % 2 ? h("code", {}, part) : part));
}

/** A shape and a word, so that a state is not said by colour alone. */
export function mark(tone, word) {
  return h("span", { class: `mark ${tone}` }, h("span", { class: "shape", "aria-hidden": "true" }), word);
}

/** A moment as the log writes it, and how long ago it is. */
export function moment(text) {
  if (!text) return "never";
  const written = text.replace("T", " ").replace(/(\.\d+)?Z$/, " UTC");
  return h("span", { class: "moment" }, h("time", { datetime: text }, written), " ",
    h("span", { class: "ago", "data-since": text }, ago(text)));
}

/** Brings every "ago" up to date. */
export function tickTimes(root) {
  for (const element of root.querySelectorAll("[data-since]")) {
    const text = ago(element.dataset.since);
    if (element.textContent !== text) element.textContent = text;
  }
}

function ago(text) {
  const seconds = Math.max(0, Math.round((Date.now() - Date.parse(text)) / 1000));
  const [count, unit] = seconds < 60 ? [seconds, "s"] : seconds < 3600 ? [seconds / 60, "min"]
    : seconds < 172800 ? [seconds / 3600, "h"] : [seconds / 86400, "days"];
  return `${Math.floor(count)} ${unit} ago`;
}

/** A number with separators. */
export const number = (value) => Number(value).toLocaleString("en-US");

/** `1 finding`, `2 findings`. */
export const counted = (count, what) => `${number(count)} ${what}${Number(count) === 1 ? "" : "s"}`;
