// The audiences of the policy: searched on the server, a page at a time, so that it makes no difference how many there are.

import { conditionTable, toneOf } from "./overview.js";
import { counted, h, number, put } from "./dom.js";
import { get, Gone, Refused } from "./server.js";

const PAGE = 25;
/** Most entries of one list that the page shows. */
const SHOWN = 200;
/** How long somebody must not type before it is searched. */
const PAUSE_MILLIS = 120;

export class Audiences {
  #list;
  #detail;
  #input;
  #count;
  #rows;
  #pager;
  #table;
  #query = { q: "", from: 0, name: "" };
  /** Whether a search is under way, and whether another one is wanted after it. */
  #isSearching = false;
  #isWanted = false;
  #pause = null;
  #status = null;

  constructor(list, detail) {
    this.#list = list;
    this.#detail = detail;
    this.#input = h("input", { id: "search", type: "search", autocomplete: "off", spellcheck: "false", maxlength: "256",
      "aria-describedby": "search-hint", input: () => this.#typed(PAUSE_MILLIS) });
    this.#count = h("p", { class: "count aside", role: "status" });
    this.#rows = h("tbody", {});
    this.#pager = h("p", { class: "pager" });
    this.#table = h("table", { class: "audiences" },
      h("caption", { class: "unseen" }, "Audiences"),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Audience"), h("th", { scope: "col", class: "number" }, "Scopes"),
        h("th", { scope: "col" }, "Baseline"), h("th", { scope: "col" }, "Matching"))),
      this.#rows);
    put(this.#list,
      h("form", { role: "search", submit: (event) => { event.preventDefault(); this.#typed(0); } },
        h("label", { for: "search" }, "Search audiences"),
        this.#input,
        h("p", { id: "search-hint", class: "hint" }, "Part of a name, an alias or a description; ", h("code", {}, "scope:read"),
          " finds what supports such a scope.")),
      this.#count, this.#table, this.#pager);
  }

  /** Shows what an address asks for. */
  open(parameters) {
    const name = parameters.get("name") ?? "";
    const query = { q: parameters.get("q") ?? "", from: Number(parameters.get("from")) || 0, name };
    const isOther = name !== this.#query.name;
    const isSearched = this.#rows.firstChild && query.q === this.#query.q && query.from === this.#query.from;
    this.#query = query;
    if (this.#input.value !== query.q && document.activeElement !== this.#input) this.#input.value = query.q;
    if (!isSearched) this.#search();
    this.#markRow();
    if (isOther || name) this.#show(isOther);
  }

  /** The policy or its status is another one. */
  refresh(status) {
    const isOther = this.#status && this.#status.active?.digest !== status.active?.digest;
    this.#status = status;
    if (isOther && this.#rows.firstChild) {
      this.#search();
      if (this.#query.name) this.#show(false);
    }
  }

  get address() {
    return address(this.#query);
  }

  #typed(wait) {
    clearTimeout(this.#pause);
    this.#pause = setTimeout(() => {
      this.#query = { ...this.#query, q: this.#input.value.trim(), from: 0 };
      // Each letter is no step to go back to.
      history.replaceState(null, "", this.address);
      this.#search();
    }, wait);
  }

  async #search() {
    this.#isWanted = true;
    // One at a time: what is typed meanwhile is searched for when the answer is there.
    if (this.#isSearching) return;
    this.#isSearching = true;
    this.#table.setAttribute("aria-busy", "true");
    try {
      while (this.#isWanted) {
        this.#isWanted = false;
        const { q, from } = this.#query;
        const found = await get(`audiences?${new URLSearchParams({ q, from, limit: PAGE })}`);
        if (!this.#isWanted) this.#found(found, q);
      }
    } catch (error) {
      // That the server is gone is said above.
      if (error instanceof Refused) put(this.#count, error.message);
      else if (!(error instanceof Gone)) throw error;
    } finally {
      this.#isSearching = false;
      this.#table.removeAttribute("aria-busy");
    }
  }

  #found({ matches, total, from, audiences }, q) {
    const text = q ? `${number(matches)} of ${counted(total, "audience")}` : counted(total, "audience");
    if (this.#count.textContent !== text) put(this.#count, text);
    this.#table.hidden = audiences.length === 0;
    put(this.#rows, audiences.map((one) => this.#row(one)));
    const step = (word, start, isThere) => (isThere
      ? h("a", { href: address({ ...this.#query, from: start }), rel: start < from ? "prev" : "next" }, word)
      : h("span", { class: "aside", "aria-disabled": "true" }, word));
    put(this.#pager, matches > audiences.length && [
      step("Previous", Math.max(0, from - PAGE), from > 0),
      h("span", { class: "aside" }, `${number(from + 1)}–${number(from + audiences.length)} of ${number(matches)}`),
      step("Next", from + PAGE, from + PAGE < matches),
    ]);
    this.#markRow();
  }

  #row({ audience, description, scopes, baseline, matching }) {
    const link = h("a", { href: address({ ...this.#query, name: audience }), "data-name": audience }, audience);
    return h("tr", {},
      h("th", { scope: "row" }, link, description && h("span", { class: "about" }, description)),
      h("td", { class: "number", "data-label": "Scopes" }, number(scopes)),
      h("td", { "data-label": "Baseline" }, codes(baseline)),
      h("td", { "data-label": "Matching" }, matching));
  }

  /** Links of a page lead to where the list is now, and that of the shown audience says so. */
  #markRow() {
    for (const link of this.#rows.querySelectorAll("a")) {
      const isShown = link.dataset.name === this.#query.name;
      link.href = address({ ...this.#query, name: link.dataset.name });
      if (isShown) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }

  async #show(isFocused) {
    const { name } = this.#query;
    this.#list.parentElement.classList.toggle("split", name !== "");
    if (!name) {
      put(this.#detail);
      return;
    }
    const title = h("h2", { id: "audience-title", tabindex: "-1" }, h("code", {}, name));
    const close = h("a", { class: "close", href: address({ ...this.#query, name: "" }) }, "Close");
    let content;
    try {
      content = this.#facts(await get(`audience?${new URLSearchParams({ name })}`));
    } catch (error) {
      if (!(error instanceof Refused)) return;
      content = h("p", { class: "empty" }, error.code === 404 ? "The policy that serves has no such audience." : error.message);
    }
    if (name !== this.#query.name) return;
    put(this.#detail, h("section", { class: "panel", "aria-labelledby": "audience-title" },
      h("div", { class: "heading" }, title, close), content));
    if (isFocused) title.focus();
  }

  #facts({ description, place, aliases, keys, rules, scopeDescriptions }) {
    const { name } = this.#query;
    const trouble = this.#status?.audienceStatuses.find((one) => one.audience === name);
    const texts = new Map(Object.entries(scopeDescriptions));
    return [
      description && h("p", { class: "about" }, description),
      h("p", { class: "aside" }, place && ["Declared at ", h("code", {}, place), ". "],
        h("a", { href: `#/ask?${new URLSearchParams({ audience: name })}` }, "Ask about it")),
      trouble?.conditions.some((one) => toneOf(one) !== "good") && conditionTable(trouble.conditions, `Conditions of ${name}`),
      aliases.length > 0 && [h("h3", {}, "Also called"), codes(aliases)],
      keys.filter((key) => key.entries?.length).map((key) => [
        h("h3", {}, h("code", {}, key.key), " ", h("span", { class: "aside place" }, key.place)),
        key.key === "scopesSupported" && texts.size > 0 ? described(key.entries, texts) : codes(key.entries)]),
      rules.length > 0 && [h("h3", {}, h("code", {}, "clientRules")), rules.map((rule) => h("div", { class: "rule" },
        h("p", {}, h("strong", {}, rule.name), " ", h("span", { class: "aside place" }, rule.place)),
        h("p", { class: "aside" }, "when ", rule.when.map((member, at) => [at > 0 && ", ", h("code", {}, member)])),
        codes(rule.baseline)))],
      h("h3", {}, "Settings"),
      settingTable(keys.filter((key) => key.value !== undefined)),
    ];
  }
}

/** Settings with where they are written. */
export function settingTable(rows) {
  return h("table", { class: "settings" }, h("caption", { class: "unseen" }, "Settings"),
    h("thead", { class: "unseen" }, h("tr", {}, ["Setting", "Value", "Written at"].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, rows.map(({ key, value, place }) => h("tr", {},
      h("th", { scope: "row" }, h("code", {}, key)), h("td", {}, value),
      h("td", { class: "aside place" }, place || "default")))));
}

/** Scopes or names, the first of very many. */
function codes(list) {
  if (list.length === 0) return h("span", { class: "aside" }, "none");
  return h("ul", { class: "codes" }, list.slice(0, SHOWN).map((one) => h("li", {}, h("code", {}, one))),
    list.length > SHOWN && h("li", { class: "aside" }, `and ${number(list.length - SHOWN)} more`));
}

function described(list, texts) {
  return h("dl", { class: "described" }, list.slice(0, SHOWN).map((one) => h("div", {},
    h("dt", {}, h("code", {}, one)), h("dd", {}, texts.get(one) ?? ""))),
  list.length > SHOWN && h("div", { class: "aside" }, `and ${number(list.length - SHOWN)} more`));
}

function address({ q, from, name }) {
  const parameters = new URLSearchParams();
  if (q) parameters.set("q", q);
  if (from) parameters.set("from", from);
  if (name) parameters.set("name", name);
  const text = parameters.toString();
  return `#/audiences${text ? `?${text}` : ""}`;
}
