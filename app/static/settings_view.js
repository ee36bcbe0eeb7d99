// What is set for a space, for the root key: its name, the secrets that sign, push, Slack, and its end.

import { visible } from "./ansi.js";
import { copyButton } from "./copy.js";
import { ask, field, notice, tell } from "./dialog.js";
import { button, fill, h, setText, show } from "./dom.js";
import { isLost, lost } from "./lost.js";
import { Field, FieldError, Part } from "./part.js";
import { go, spaceAddress } from "./router.js";

const EVENTS = ["created", "started", "completed", "failed", "dead", "killed"];
const MASK = "***";
const HEADERS = `One a line. Values that are set are ${MASK} here: write all of them again to change anything.`;
const SIGNED = ["Nothing is signed.", "One secret signs.", "Two secrets sign, the new one and the one before it."];

/** Show a space's settings until `signal`. */
export class SettingsView {
  constructor(session, shell, { id }, signal) {
    Object.assign(this, { session, shell, id, signal });
    this.parts = [new NamePart(this), new SecretPart(this), new PushPart(this), new SlackPart(this), new EndPart(this)];
    this.element = h("main", { class: "settings" }, h("h2", {}, "Settings"));
  }

  async start() {
    try {
      const space = await this.session.api.get(`/spaces/${this.id}`, {}, this.signal);
      for (const part of this.parts) part.show?.(space);
      this.element.append(...this.parts.map(({ element }) => element));
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!isLost(error)) return this.shell.problem(error);
      this.element.className = "";
      const title = error.status === 403 ? "Settings are for the root key" : "This space is not there";
      fill(this.element, lost(title, `${error.message} It was ${this.id}.`));
    }
  }

  shortcuts() {
    return { u: ["Up to the space", () => go(spaceAddress(this.id))] };
  }

  /** Change what is given; the space as it is then. */
  patch(body) {
    return this.session.api.patch(`/spaces/${this.id}`, JSON.stringify(body));
  }
}

class NamePart {
  constructor(view) {
    this.name = h("input", { required: true });
    const submit = async () => {
      const space = await view.patch({ name: this.name.value });
      this.show(space);
      view.shell.rename(view.id, space.name);
      return "The name is saved.";
    };
    this.part = new Part("Name", { fields: [new Field("body.name", this.name, field("What it is called", this.name))], buttons: [save("Rename")], submit });
    this.element = this.part.element;
  }

  show({ name }) {
    this.name.value = name;
  }
}

class SecretPart {
  constructor(view) {
    this.view = view;
    this.state = h("p", {});
    this.make = button("Make a secret", () => this.#make());
    this.drop = button("Drop the old one", () => this.#dropOld());
    this.none = button("Sign no more", () => this.#signNoMore(), { class: "danger" });
    const about = h("p", { class: "hint" }, "Secrets sign what is sent: callbacks and pushes, as Standard Webhooks says.");
    this.part = new Part("Webhook secret", { about: [about, this.state], buttons: [this.make, this.drop, this.none] });
    this.element = this.part.element;
  }

  show({ hooks }) {
    const secrets = hooks?.webhookSecrets ?? 0;
    setText(this.state, SIGNED[secrets]);
    setText(this.make, secrets ? "Make a new secret" : "Make a secret");
    show(this.drop, secrets === 2);
    show(this.none, secrets > 0);
    this.secrets = secrets;
  }

  /** The secret before the last one stops signing: whoever still checks with it is asked about first. */
  async #make() {
    let made = null;
    const submit = async () => this.show((made = await this.view.patch({ rotateWebhookSecret: true })));
    const body = [h("p", {}, "Two secrets sign. The older one of them stops signing now.")];
    if (this.secrets < 2) await this.part.attempt(submit);
    else await ask({ title: "Make a new secret?", body, action: "Make it", submit });
    if (made) await reveal(made.webhookSecret);
  }

  #signNoMore() {
    const body = [h("p", {}, "Receivers that check signatures refuse what is sent from now on.")];
    const submit = async () => this.show(await this.view.patch({ webhookSecrets: [] }));
    return ask({ title: "Sign no more?", body, action: "Sign no more", danger: true, submit });
  }

  #dropOld() {
    return this.part.attempt(async () => {
      this.show(await this.view.patch({ dropOldWebhookSecret: true }));
      return "Only the newest secret signs.";
    });
  }
}

class PushPart {
  constructor(view) {
    this.url = h("input", { type: "url", required: true, placeholder: "https://" });
    this.headers = h("textarea", { rows: 2, spellcheck: "false", class: "code", placeholder: "authorization: Bearer ..." });
    this.names = h("textarea", { rows: 2, spellcheck: "false" });
    const fields = [
      new Field("push.url", this.url, field("URL", this.url)),
      new Field("push.headers", this.headers, field("Headers", this.headers, HEADERS)),
      new Field("push.names", this.names, field("Only jobs named", this.names, "One a line. Empty: all.")),
    ];
    const about = h("p", { class: "hint" }, "The URL gets a message for each job that becomes pending, so that a worker need not poll all the time.");
    const submit = async () => {
      this.show(await view.patch({ push: { url: this.url.value, headers: headersOf(this.headers.value), names: this.#names() } }));
      return "Push is saved.";
    };
    const remove = async () => {
      this.show(await view.patch({ push: null }));
      return "Nothing is pushed any more.";
    };
    this.remove = button("Remove", () => this.part.attempt(remove), { class: "danger" });
    this.part = new Part("Push", { about: [about], fields, buttons: [save(), this.remove], submit });
    this.element = this.part.element;
  }

  show({ hooks }) {
    const { url, headers, names } = { url: "", headers: {}, names: [], ...hooks?.push };
    this.url.value = url;
    this.headers.value = Object.entries(headers).map(([name, value]) => `${name}: ${value}`).join("\n");
    this.names.value = names.join("\n");
    this.given = { names, text: this.names.value };
    show(this.remove, url !== "");
  }

  /** Those that were not touched stay what they are, whatever is in them. */
  #names() {
    return this.names.value === this.given.text ? this.given.names : filled(this.names.value);
  }
}

class SlackPart {
  constructor(view) {
    this.url = h("input", { type: "url", required: true, autocomplete: "off" });
    this.boxes = EVENTS.map((event) => h("input", { type: "checkbox", value: event }));
    this.state = h("p", {});
    const checks = this.boxes.map((box) => h("label", { class: "check" }, box, box.value));
    const fields = [
      new Field("slack.url", this.url, field("Incoming webhook", this.url, "It is a secret, and not shown here: write it again to change anything.")),
      new Field("slack.events", this.boxes[0], h("fieldset", { class: "checks" }, h("legend", {}, "Told of"), ...checks)),
    ];
    const submit = async () => {
      const chosen = this.boxes.filter((box) => box.checked).map((box) => box.value);
      if (!chosen.length) throw new FieldError("slack.events", "Choose at least one event.");
      this.show(await view.patch({ slack: { url: this.url.value, events: chosen } }));
      return "Slack is saved.";
    };
    const remove = async () => {
      this.show(await view.patch({ slack: null }));
      return "No messages go to Slack any more.";
    };
    this.remove = button("Remove", () => this.part.attempt(remove), { class: "danger" });
    this.part = new Part("Slack", { about: [this.state], fields, buttons: [save(), this.remove], submit });
    this.element = this.part.element;
  }

  show({ hooks }) {
    const slack = hooks?.slack;
    setText(this.state, slack ? `Messages go to ${slack.url}.` : "No messages go to Slack.");
    this.url.value = "";
    for (const box of this.boxes) box.checked = slack ? slack.events.includes(box.value) : false;
    show(this.remove, Boolean(slack));
  }
}

class EndPart {
  constructor(view) {
    this.view = view;
    const about = h("p", { class: "hint" }, "The space is deleted with its keys, its jobs and their logs. This cannot be undone.");
    this.part = new Part("Delete", { about: [about], buttons: [button("Delete this space", () => this.#ask(), { class: "danger" })] });
    this.element = this.part.element;
  }

  async #ask() {
    const { name } = await this.view.session.api.get(`/spaces/${this.view.id}`);
    const typed = h("input", { required: true, autofocus: true, autocomplete: "off", spellcheck: "false" });
    const submit = async () => {
      if (typed.value !== name && typed.value !== visible(name)) throw new Error("That is not its name.");
      await this.view.session.api.remove(`/spaces/${this.view.id}`);
      notice(`${visible(name)} is deleted.`);
      go("#/");
    };
    const body = [h("p", {}, "It is deleted with its keys, its jobs and their logs. This cannot be undone."), field(`Its name, ${visible(name)}`, typed)];
    await ask({ title: `Delete ${visible(name)}?`, body, action: "Delete", danger: true, submit });
  }
}

function save(text = "Save") {
  return h("button", { type: "submit", class: "primary" }, text);
}

function reveal(secret) {
  const shown = h("code", { class: "secret", tabindex: 0 }, secret);
  return tell("The webhook secret", h("p", {}, "This is the only time it is shown."), shown, copyButton(() => secret, "Copy the secret"));
}

/** The lines that say something. */
function filled(text) {
  return text.split("\n").map((line) => line.trim()).filter(Boolean);
}

/** Headers as they are written, one a line. Throws FieldError for one that is none, or whose value is not known here. */
function headersOf(text) {
  return Object.fromEntries(filled(text).map(headerOf));
}

function headerOf(line) {
  const [, name, value] = /^([^:]*[^:\s])\s*:\s*(.*)$/.exec(line) ?? [];
  if (name === undefined) throw new FieldError("push.headers", `A header is a name, a colon and a value, not ${line}.`);
  if (value === MASK) throw new FieldError("push.headers", `Write the value of ${name} again: it is not known here.`);
  return [name, value];
}
