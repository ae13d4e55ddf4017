// Decisions per second: the difference of two counts, over the time between them on the clock of the server.

import { h, number, put, svg } from "./dom.js";

/** Seconds that the chart shows. */
const SHOWN = 120;
/** Seconds that a rate is the mean of. */
const MEAN = 5;

export class Decisions {
  #place;
  #samples = [];
  #parts;

  constructor(place) {
    this.#place = place;
  }

  /** Another count; one of another process starts at 0. */
  add({ startTime, uptimeMillis, decisions }) {
    const totals = new Map();
    for (const { decision, reason, count } of decisions) {
      const key = decision === "ALLOW" ? "ALLOW" : reason;
      totals.set(key, (totals.get(key) ?? 0) + count);
    }
    const last = this.#samples.at(-1);
    if (last && (last.startTime !== startTime || last.at > uptimeMillis)) this.#samples = [];
    this.#samples.push({ startTime, at: uptimeMillis, totals });
    const oldest = uptimeMillis - (SHOWN + MEAN) * 1000;
    while (this.#samples.length > 2 && this.#samples[0].at < oldest) this.#samples.shift();
    this.#show();
  }

  /** Answers per second between two samples: of one kind, or of all denials. */
  #rate(from, to, key) {
    const seconds = (to.at - from.at) / 1000;
    if (seconds <= 0) return 0;
    const count = (sample) => (key === "DENY" ? denials(sample.totals) : sample.totals.get(key) ?? 0);
    return (count(to) - count(from)) / seconds;
  }

  #show() {
    this.#parts ??= this.#build();
    const now = this.#samples.at(-1);
    const before = this.#samples.findLast((sample) => now.at - sample.at >= MEAN * 1000) ?? this.#samples[0];
    const rate = (key) => shown(this.#rate(before, now, key));
    this.#parts.allowed.textContent = rate("ALLOW");
    this.#parts.denied.textContent = rate("DENY");
    this.#draw(now);
    const reasons = [...now.totals.keys()].filter((key) => key !== "ALLOW")
      .sort((one, other) => now.totals.get(other) - now.totals.get(one) || one.localeCompare(other));
    const row = (name, key) => h("tr", {}, h("th", { scope: "row" }, name), h("td", { class: "number" }, rate(key)),
      h("td", { class: "number" }, number(now.totals.get(key) ?? 0)));
    put(this.#parts.rows, row("allowed", "ALLOW"), reasons.map((reason) => row(h("code", {}, reason), reason)),
      reasons.length === 0 && h("tr", {}, h("td", { colspan: "3", class: "aside" }, "no denial since the server started")));
  }

  #build() {
    const parts = {
      allowed: h("span", { class: "figure" }),
      denied: h("span", { class: "figure" }),
      allowedArea: svg("path", { class: "allowed" }),
      deniedArea: svg("path", { class: "denied" }),
      most: h("span", {}),
      rows: h("tbody", {}),
    };
    put(this.#place, h("section", { class: "panel decisions", "aria-labelledby": "decisions-title" },
      h("h2", { id: "decisions-title" }, "Decisions per second"),
      h("dl", { class: "rates" },
        h("div", { class: "allowed" }, h("dt", {}, "Allowed"), h("dd", {}, parts.allowed)),
        h("div", { class: "denied" }, h("dt", {}, "Denied"), h("dd", {}, parts.denied))),
      h("div", { class: "chart", "aria-hidden": "true" }, parts.most,
        svg("svg", { viewBox: `0 0 ${SHOWN} 40`, preserveAspectRatio: "none" }, parts.allowedArea, parts.deniedArea),
        h("p", { class: "axis" }, h("span", {}, `${SHOWN} s ago`), h("span", {}, "now"))),
      h("table", {}, h("caption", { class: "unseen" }, "Answers by decision and reason"),
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Answer"), h("th", { scope: "col", class: "number" }, "Per second"),
          h("th", { scope: "col", class: "number" }, "Since start"))), parts.rows)));
    return parts;
  }

  /** Denials at the bottom, what is allowed on top of them, as steps from sample to sample. */
  #draw(now) {
    const steps = this.#samples.slice(1).map((to, at) => {
      const from = this.#samples[at];
      const x = (sample) => SHOWN - (now.at - sample.at) / 1000;
      return { left: Math.max(0, x(from)), right: x(to), denied: this.#rate(from, to, "DENY"), allowed: this.#rate(from, to, "ALLOW") };
    }).filter((step) => step.right > 0);
    const most = Math.max(1, ...steps.map((step) => step.denied + step.allowed));
    const y = (value) => 40 - (value / most) * 38;
    const area = (low, high) => steps.map((step) => {
      const [left, right] = [step.left.toFixed(2), step.right.toFixed(2)];
      return `M${left} ${y(low(step)).toFixed(2)}V${y(high(step)).toFixed(2)}H${right}V${y(low(step)).toFixed(2)}Z`;
    }).join("");
    this.#parts.deniedArea.setAttribute("d", area(() => 0, (step) => step.denied));
    this.#parts.allowedArea.setAttribute("d", area((step) => step.denied, (step) => step.denied + step.allowed));
    this.#parts.most.textContent = `${shown(most)}/s`;
  }
}

const denials = (totals) => [...totals].reduce((sum, [key, count]) => (key === "ALLOW" ? sum : sum + count), 0);

/** One digit below ten, none above. */
const shown = (rate) => (rate === 0 ? "0" : rate < 10 ? rate.toFixed(1) : number(Math.round(rate)));
