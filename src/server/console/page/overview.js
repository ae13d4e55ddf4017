// What serves, its conditions and its findings.

import { counted, h, mark, moment, number, prose, put } from "./dom.js";
import { get } from "./server.js";

/** Conditions that are there only while they are true, and then say that something is wrong, are trouble; so are others that are not true. */
const REGULAR = ["Ready", "PolicyAccepted", "BaselineScopesValid", "TlsMaterialValid", "AccessAccepted",
  "ShadowPolicyAccepted", "ShadowBaselineScopesValid"];

export function toneOf({ type, status }) {
  if (REGULAR.includes(type)) return status === "True" ? "good" : status === "False" ? "bad" : "unknown";
  return status === "True" ? "notable" : "good";
}

/** The condition of a type that is as wanted, if it is there. */
export const condition = (status, type, wanted) =>
  status.conditions.find((one) => one.type === type && one.status === wanted);

/** The whole in one word: a tone and a text. */
export function verdict(status) {
  const ready = status.conditions.find((one) => one.type === "Ready");
  if (ready?.reason === "Draining") return ["notable", "Draining"];
  if (ready?.status !== "True") return ["bad", "Not ready"];
  if (condition(status, "ServingLastGood", "True")) return ["notable", "Serving the last good policy"];
  return ["good", "Serving"];
}

/** What everybody should see, on every view: pairs of a tone and content. */
export function notices(status) {
  const found = [];
  const draining = status.conditions.find((one) => one.type === "Ready" && one.reason === "Draining");
  if (draining) found.push(["notable", ["Draining: the server is shutting down and takes no new calls."]]);
  const rejected = condition(status, "PolicyAccepted", "False");
  if (rejected) {
    const serving = status.active ? `generation ${status.active.generation} keeps serving` : "no policy serves";
    const count = status.lastAttempt?.findingCount;
    found.push(["bad", [
      `The newest policy files are not accepted, so ${serving}. `,
      count ? h("a", { href: "#/findings" }, `See ${counted(count, "finding")}`) : prose(rejected.message),
    ]]);
  }
  for (const type of ["AuditDegraded", "AuditChainBroken", "PolicyRemovalWaiting"]) {
    const one = condition(status, type, "True");
    if (one) found.push([type === "PolicyRemovalWaiting" ? "notable" : "bad", [h("strong", {}, type), ": ", prose(one.message)]]);
  }
  return found;
}

/** Shows a status. */
export function showOverview(places, { status, version, startTime }) {
  put(places.serving, serving(status, version, startTime));
  put(places.conditions, conditions(status));
  put(places.findings, findings(status));
}

function serving(status, version, startTime) {
  const { active } = status;
  const fact = (name, ...value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
  return h("section", { class: "panel facts", "aria-labelledby": "serving-title" },
    h("h2", { id: "serving-title" }, "Policy"),
    active ? h("dl", {},
      fact("Generation", h("span", { class: "figure" }, active.generation)),
      fact("Audiences", h("span", { class: "figure" }, number(status.audienceCount))),
      fact("Serving since", moment(status.loadTime)),
      fact("Newest files read", attempt(status)),
      fact("Digest", h("code", { class: "digest" }, active.digest)),
      fact("Source", h("code", {}, status.source)),
      fact("Server", `version ${version}, up since `, moment(startTime)))
      : h("p", { class: "empty" }, "No policy serves yet. The conditions below say why."));
}

function attempt({ lastAttempt }) {
  if (!lastAttempt) return "never";
  const word = lastAttempt.accepted ? mark("good", "accepted") : mark("bad", "rejected");
  return [word, " ", moment(lastAttempt.attemptTime)];
}

function conditions(status) {
  return h("section", { class: "panel", "aria-labelledby": "conditions-title" },
    h("h2", { id: "conditions-title" }, "Conditions"),
    conditionTable(status.conditions, "Conditions of the server"),
    status.audienceStatuses.length > 0 && [
      h("h3", {}, "Audiences in trouble"),
      status.audienceStatuses.map((one) => [
        h("h4", {}, h("code", {}, one.audience)),
        conditionTable(one.conditions, `Conditions of ${one.audience}`)]),
    ]);
}

export function conditionTable(rows, caption) {
  return h("table", { class: "conditions" },
    h("caption", { class: "unseen" }, caption),
    h("thead", {}, h("tr", {}, ["Condition", "Status", "Reason", "Message", "Since"].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, rows.map((one) => h("tr", { class: toneOf(one) },
      h("th", { scope: "row" }, one.type),
      h("td", {}, mark(toneOf(one), one.status)),
      h("td", {}, one.reason),
      h("td", { class: "message" }, prose(one.message)),
      h("td", {}, moment(one.lastTransitionTime))))));
}

function findings({ lastAttempt }) {
  const all = lastAttempt?.findings ?? [];
  if (all.length === 0) return null;
  const errors = all.some((one) => one.severity === "error");
  const more = lastAttempt.findingCount - all.length;
  return h("section", { class: `panel findings ${errors ? "bad" : "notable"}`, "aria-labelledby": "findings-title" },
    h("h2", { id: "findings-title", tabindex: "-1" }, counted(lastAttempt.findingCount, "finding"),
      h("span", { class: "aside" }, errors ? " in files that are not accepted" : " in the policy that serves")),
    h("ol", {}, all.map(finding)),
    more > 0 && h("p", { class: "aside" }, `and ${number(more)} more; `, h("code", {}, "scopeward check"), " lists them all"));
}

function finding({ file, line, column, code, severity, audience, message, suggestion }) {
  const place = line ? `${file}:${line}:${column}` : file;
  return h("li", {},
    h("p", { class: "where" }, mark(severity === "error" ? "bad" : "notable", severity), " ", h("code", {}, place),
      audience && [" ", h("span", { class: "aside" }, "at ", h("code", {}, audience))]),
    h("p", { class: "what" }, prose(message)),
    suggestion && h("p", { class: "how" }, prose(suggestion)),
    help(code));
}

/** The page about a code, read when it is opened. */
function help(code) {
  const text = h("div", { class: "help" }, h("p", {}, "Loading"));
  let isRead = false;
  const read = async (event) => {
    if (!event.target.open || isRead) return;
    isRead = true;
    try {
      put(text, markdown((await get(`help?code=${encodeURIComponent(code)}`)).text));
    } catch {
      isRead = false;
      put(text, h("p", {}, "The server did not answer. ", h("code", {}, `scopeward help ${code}`), " prints the same."));
    }
  };
  return h("details", { toggle: read }, h("summary", {}, "About ", h("code", {}, code)), text);
}

/** Prose in which what stands between two pairs of asterisks is strong. */
const strong = (text) => text.split("**").map((part, at) => (at % 2 ? h("strong", {}, prose(part)) : prose(part)));

/** The little Markdown that pages about findings have. */
function markdown(text) {
  const blocks = [];
  let fence = null;
  let lines = [];
  const end = () => {
    if (lines.length > 0) blocks.push(h("p", {}, strong(lines.join(" "))));
    lines = [];
  };
  for (const line of text.split("\n")) {
    if (line.startsWith("```")) {
      if (fence) blocks.push(h("pre", { tabindex: "0" }, h("code", {}, fence.join("\n"))));
      else end();
      fence = fence ? null : [];
    } else if (fence) {
      fence.push(line);
    } else if (line.startsWith("# ") || line.trim() === "") {
      end();
    } else if (line.startsWith("#")) {
      end();
      blocks.push(h("p", {}, h("strong", {}, line.replace(/^#+ /, ""))));
    } else {
      lines.push(line);
    }
  }
  end();
  return blocks;
}
