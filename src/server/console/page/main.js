// The page: asks the server every second, shows what it says, and says so when it says nothing.

import { Ask } from "./ask.js";
import { Audiences } from "./audiences.js";
import { Decisions } from "./decisions.js";
import { h, mark, put, tickTimes } from "./dom.js";
import { notices, showOverview, verdict } from "./overview.js";
import { get, Gone, Refused } from "./server.js";

const place = (id) => document.getElementById(id);
const places = {
  state: place("state"), notices: place("notices"), version: place("version"), main: place("main"),
  serving: place("serving"), conditions: place("conditions"), findings: place("findings"),
};
const decisions = new Decisions(place("decisions"));
const audiences = new Audiences(place("audience-list"), place("audience"));
const ask = new Ask(place("question"), place("answer"));

/** What the server said last; nothing before its first answer. */
let known = null;
/** When it stopped answering. */
let silentSince = null;
/** What it says instead, if it answers at all. */
let refusal = "";
let timer = null;
let shownNotices = "";

async function tick() {
  clearTimeout(timer);
  let wait = EVERY_MILLIS;
  try {
    const live = await get("live");
    if (known?.token !== live.status || known.startTime !== live.startTime) {
      const { token, status } = await get("status");
      known = { token, status, version: live.version, startTime: live.startTime };
      showOverview(places, known);
      audiences.refresh(status);
      ask.refresh(status);
    }
    decisions.add(live);
    silentSince = null;
  } catch (error) {
    silentSince ??= new Date();
    refusal = error instanceof Refused ? error.message : "";
    wait = RETRY_MILLIS;
    if (!(error instanceof Refused || error instanceof Gone)) throw error;
  } finally {
    clearTimeout(timer);
    // A page that nobody sees asks nothing.
    if (!document.hidden) timer = setTimeout(tick, wait);
  }
  showState();
  tickTimes(places.main);
}

function showState() {
  const isStale = silentSince !== null;
  places.main.classList.toggle("stale", isStale);
  const [tone, word] = isStale ? ["bad", "No answer"] : verdict(known.status);
  if (places.state.textContent !== word) put(places.state, mark(tone, word));
  put(places.version, known?.version ?? "");
  showTitle();
  const found = isStale ? [silence()] : notices(known.status);
  // A live region is read out when it changes, so it changes only when there is something to say.
  const text = found.map(([, content]) => content.map((part) => part.textContent ?? part).join("")).join("\n");
  if (text === shownNotices) return;
  shownNotices = text;
  put(places.notices, found.map(([tone, content]) => h("div", { class: `notice ${tone}` }, mark(tone, ""), h("p", {}, content))));
}

function silence() {
  const since = silentSince.toISOString().slice(11, 19);
  const last = known ? " The page shows what it said last, and goes on by itself when it is back." : " Trying again.";
  const what = refusal ? `The server refuses to answer this page since ${since} UTC: ${refusal}.` : `The server has not answered since ${since} UTC.`;
  return ["bad", [what, last]];
}

/** The views by their addresses: `#/`, `#/audiences`, `#/ask`. */
const VIEWS = ["overview", "audiences", "ask"];
let view = "";
let isStarted = false;

function follow() {
  // Any other address is a place on the page, such as that of the skip link.
  if (isStarted && location.hash && !location.hash.startsWith("#/")) return;
  const [path, query] = location.hash.replace(/^#\//, "").split("?");
  const name = VIEWS.includes(path) ? path : "overview";
  const isOther = name !== view;
  view = name;
  for (const one of VIEWS) {
    place(one).hidden = one !== name;
    const link = document.querySelector(`nav a[data-view="${one}"]`);
    if (one === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  showTitle();
  if (isOther && isStarted) {
    scrollTo(0, 0);
    place(`${name}-title`).focus({ preventScroll: true });
  }
  const parameters = new URLSearchParams(query);
  if (name === "audiences") audiences.open(parameters);
  if (name === "ask") ask.open(parameters);
  if (path === "findings") place("findings-title")?.focus();
}

function showTitle() {
  const word = silentSince ? "No answer" : known ? verdict(known.status)[1] : "Scopeward";
  document.title = [word, view && place(`${view}-title`).textContent, "Scopeward"].filter((one, at, all) => one && all.indexOf(one) === at).join(" · ");
}

const EVERY_MILLIS = 1000;
const RETRY_MILLIS = 1500;

addEventListener("hashchange", follow);
document.addEventListener("visibilitychange", () => !document.hidden && tick());
follow();
isStarted = true;
tick();
