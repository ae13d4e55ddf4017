// Asks what the policy would answer. Nothing is granted, recorded or counted.

import { settingTable } from "./audiences.js";
import { h, mark, prose, put } from "./dom.js";
import { post, Refused } from "./server.js";

/** A word of the server as it stands out. */
const toned = ({ tone, text }) => (tone === "plain" ? h("span", { class: "aside" }, text) : mark(tone, text));

export class Ask {
  #form;
  #answer;
  #error;
  #running = null;
  /** The generation that answered, and what is said if another one serves. */
  #answered = null;
  #stale = null;

  constructor(form, answer) {
    this.#answer = answer;
    this.#error = h("p", { class: "error", role: "alert" });
    this.#form = this.#build();
    put(form, this.#form);
    this.#choose();
    put(this.#answer, h("p", { class: "empty" }, "The answer, with the rules that lead to it, is shown here. Nothing is granted, recorded or counted."));
  }

  /** Shows what an address asks for. */
  open(parameters) {
    const audience = parameters.get("audience");
    if (audience !== null) {
      this.#field("audiences").value = audience;
      this.#field("scope").focus();
    }
  }

  /** The policy or its status is another one. */
  refresh(status) {
    const serving = status.active?.generation;
    if (!this.#stale || this.#answered === serving) return;
    put(this.#stale, `Generation ${this.#answered} answered; generation ${serving} serves now. Ask again.`);
  }

  #field(name) {
    return this.#form.elements.namedItem(name);
  }

  #build() {
    const text = (name, label, hint, more = {}) => field(name, label, hint,
      h("input", { id: `ask-${name}`, name, type: "text", autocomplete: "off", autocapitalize: "off", spellcheck: "false",
        "aria-describedby": hint && `ask-${name}-hint`, ...more }));
    const lines = (name, label, hint, rows) => field(name, label, hint,
      h("textarea", { id: `ask-${name}`, name, rows, spellcheck: "false", autocapitalize: "off", "aria-describedby": hint && `ask-${name}-hint` }));
    const kind = (value, label, isChecked) => h("label", { class: "choice" },
      h("input", { type: "radio", name: "kind", value, checked: isChecked, change: () => this.#choose() }), label);
    const source = h("select", { id: "ask-source", name: "source" },
      [["", "not said"], ["CLIENT_SOURCE_DCR", "dcr: dynamic registration"], ["CLIENT_SOURCE_CIMD", "cimd: client id metadata document"],
        ["CLIENT_SOURCE_STATIC", "static: configured by hand"]].map(([value, label]) => h("option", { value }, label)));
    const grant = h("select", { id: "ask-grant", name: "grant" },
      [["REFRESH", "a refresh token"], ["CLIENT_CREDENTIALS", "its own credentials"], ["JWT_BEARER", "a JWT"],
        ["TOKEN_EXCHANGE", "another token"]].map(([value, label]) => h("option", { value: `TOKEN_GRANT_${value}` }, label)));
    return h("form", { submit: (event) => { event.preventDefault(); this.#ask(); } },
      h("fieldset", { class: "kinds" }, h("legend", {}, "Question"),
        kind("authorize", "Which scopes may an authorize request get?", true),
        kind("expand", "Which scopes shall a client hold that registers?", false),
        kind("token", "Which scopes may a token have?", false)),
      lines("audiences", "Audiences", "One a line; none means that the request names none.", "2"),
      text("scope", "Scope", "As the client sent it; empty means that it omitted it."),
      h("div", { class: "of-token" },
        field("grant", "The client presents", null, grant),
        h("label", { class: "choice" }, h("input", { type: "checkbox", name: "ungranted", change: () => this.#choose() }),
          "It stands for no scope of its own"),
        text("granted", "Granted scope", "What was granted; empty means nothing. It alone counts then.")),
      h("div", { class: "of-registered" },
        h("label", { class: "choice" }, h("input", { type: "checkbox", name: "unknown", change: () => this.#choose() }),
          "What the client registered is unknown"),
        text("registered", "Registered scope", "As stored; empty means registered with none.")),
      h("div", { class: "of-expand" },
        h("label", { class: "choice" }, h("input", { type: "checkbox", name: "update", change: () => this.#choose() }),
          "It is an update of a registration"),
        text("previous", "Previous scope", "What the client holds so far.")),
      h("details", {}, h("summary", {}, "Client"),
        field("source", "Source", null, source),
        text("clientId", "Client id"), text("clientName", "Client name"), text("softwareId", "Software id"),
        lines("redirectUris", "Redirect URIs", "One a line.", "2"),
        text("grantTypes", "Grant types", "Separated by blanks; none means authorization_code."),
        text("applicationType", "Application type", "web or native")),
      this.#error,
      h("button", { type: "submit" }, "Ask"));
  }

  /** Shows the fields of the chosen question. */
  #choose() {
    const kind = this.#form.elements.kind.value;
    this.#form.querySelector(".of-registered").hidden = kind === "expand" || (kind === "token" && !this.#field("ungranted").checked);
    this.#form.querySelector(".of-expand").hidden = kind !== "expand";
    this.#form.querySelector(".of-token").hidden = kind !== "token";
    this.#field("granted").disabled = this.#field("ungranted").checked;
    this.#field("registered").disabled = this.#field("unknown").checked;
    this.#field("previous").disabled = !this.#field("update").checked;
  }

  #question() {
    const value = (name) => this.#field(name).value;
    const split = (name, by) => value(name).split(by).map((part) => part.trim()).filter(Boolean);
    const client = {
      clientId: value("clientId"), source: value("source") || undefined, clientName: value("clientName"), softwareId: value("softwareId"),
      redirectUris: split("redirectUris", "\n"), grantTypes: split("grantTypes", /\s+/), applicationType: value("applicationType"),
    };
    const common = { audiences: split("audiences", "\n"), scope: value("scope") || undefined, client };
    const registeredScope = this.#field("unknown").checked ? undefined : value("registered");
    switch (this.#form.elements.kind.value) {
      case "authorize": return ["authorize", { ...common, registeredScope }];
      case "expand": return ["expand", { ...common, previousScope: this.#field("update").checked ? value("previous") : undefined }];
      default: {
        const backing = this.#field("ungranted").checked ? { registeredScope } : { grantedScope: value("granted") };
        return ["token", { ...common, grant: value("grant"), ...backing }];
      }
    }
  }

  async #ask() {
    this.#running?.abort();
    const running = new AbortController();
    this.#running = running;
    this.#answer.setAttribute("aria-busy", "true");
    try {
      const answer = await post(...this.#question(), running.signal);
      put(this.#error);
      this.#show(answer);
    } catch (error) {
      if (running !== this.#running) return;
      put(this.#error, error instanceof Refused ? prose(error.message) : "The server did not answer. Ask again when it is back.");
    } finally {
      if (running === this.#running) this.#answer.removeAttribute("aria-busy");
    }
  }

  #show({ answer, text, command }) {
    this.#answered = answer.policy.generation;
    this.#stale = h("p", { class: "outdated", role: "status" });
    const { tone } = text.decision;
    put(this.#answer,
      h("p", { class: `decision ${tone}`, role: "status" }, toned(text.decision), " ", h("code", {}, text.gist)),
      this.#stale,
      text.notes.map((note) => h("p", { class: "note" }, prose(note))),
      text.audiences.map(audience),
      text.refused.length > 0 && [h("h3", {}, "Refused"), h("ul", { class: "plain" }, text.refused.map(({ reason, message }) =>
        h("li", {}, mark("bad", reason), " ", message)))],
      h("h3", {}, "The client gets"),
      h("pre", { tabindex: "0" }, h("code", {}, text.clientGets.join("\n"))),
      h("h3", {}, "Policy"),
      h("p", {}, `Generation ${answer.policy.generation}, `, h("code", {}, answer.policy.digest)),
      h("h3", {}, "Ask a server"),
      h("pre", { tabindex: "0" }, h("code", {}, command)));
  }
}

function audience({ audience: name, place, scopes, rules, settings }) {
  return h("section", { class: "at" },
    h("h3", {}, h("code", {}, name), " ", h("span", { class: "aside place" }, place)),
    h("ul", { class: "trail" }, scopes.map(({ scope, outcome, grounds }) => h("li", { class: outcome.tone },
      h("p", {}, h("code", { class: "scope" }, scope), " ", toned(outcome)),
      h("ul", {}, grounds.map((ground) => h("li", {}, prose(ground.text), ground.place && [" ", h("span", { class: "place" }, ground.place)])))))),
    rules.length > 0 && h("ul", { class: "plain" }, rules.map(({ name: rule, place: at, outcome }) =>
      h("li", {}, "client rule ", h("code", {}, rule), " ", toned(outcome), " ", h("span", { class: "place" }, at)))),
    settingTable(settings));
}

function field(name, label, hint, input) {
  return h("div", { class: "field" }, h("label", { for: `ask-${name}` }, label), input,
    hint && h("p", { class: "hint", id: `ask-${name}-hint` }, hint));
}
