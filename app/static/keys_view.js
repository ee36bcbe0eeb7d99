// The keys of a space, for the root key: list, make, revoke.

import { visible } from "./ansi.js";
import { copyButton } from "./copy.js";
import { ask, field, tell } from "./dialog.js";
import { button, fill, h } from "./dom.js";
import { isLost, lost } from "./lost.js";
import { age, moment } from "./time.js";

const PRESETS = {
  reader: ["jobs:read"],
  worker: ["jobs:worker"],
  producer: ["jobs:create", "jobs:read", "jobs:kill", "jobs:retry"],
};
const SCOPES = ["jobs:read", "jobs:read:progress", "jobs:create", "jobs:kill", "jobs:retry", "jobs:worker", "jobs:write"];

/** Show a space's keys until `signal`. */
export class KeysView {
  constructor(session, shell, { id }, signal) {
    Object.assign(this, { session, shell, id, signal });
    this.body = h("tbody", {});
    const heads = ["Name", "Scopes", "Created", "Expires", "Last used", ""].map((name) => h("th", { scope: "col" }, name));
    this.element = h(
      "main",
      { class: "keys" },
      h("header", {}, h("h2", {}, "Keys"), button("New key", () => this.#create(), { class: "primary" })),
      h("table", { class: "plain" }, h("thead", {}, h("tr", {}, ...heads)), this.body),
    );
  }

  start() {
    return this.#load();
  }

  shortcuts() {
    return { c: ["New key", () => this.#create()] };
  }

  async #load() {
    try {
      const keys = await this.session.api.get(`/spaces/${this.id}/tokens`, {}, this.signal);
      fill(this.body, ...keys.map((key) => this.#row(key)));
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!isLost(error)) return this.shell.problem(error);
      this.element.className = "";
      fill(this.element, lost("This space is not there", `${error.message} It was ${this.id}.`));
    }
  }

  #row(key) {
    const cell = (head, ...inside) => h("td", { dataset: { head } }, ...inside);
    return h(
      "tr",
      {},
      cell("name", h("b", {}, visible(key.name))),
      cell("scopes", ...key.scopes.map((scope) => h("code", { class: "scope" }, scope))),
      cell("created", moment(key.createdAt)),
      cell("expires", key.expiresAt ? moment(key.expiresAt) : "never"),
      cell("last used", key.lastUsedAt ? `${age(key.lastUsedAt)} ago` : "never"),
      cell("", button("Revoke", () => this.#revoke(key), { class: "quiet danger" })),
    );
  }

  #revoke(key) {
    return ask({
      title: `Revoke ${visible(key.name)}?`,
      body: [h("p", {}, "It stops working within a second, everywhere, for good.")],
      action: "Revoke",
      danger: true,
      submit: async () => {
        await this.session.api.remove(`/spaces/${this.id}/tokens/${key.id}`);
        await this.#load();
      },
    });
  }

  async #create() {
    const name = h("input", { required: true, maxlength: 200, autofocus: true });
    const boxes = SCOPES.map((scope) => h("input", { type: "checkbox", name: "scope", value: scope }));
    const choose = (scopes) => boxes.forEach((box) => (box.checked = scopes.includes(box.value)));
    const presets = Object.entries(PRESETS).map(([label, scopes]) => button(label, () => choose(scopes), { class: "quiet" }));
    const expires = h("input", { type: "datetime-local" });
    const scopes = boxes.map((box) => h("label", { class: "check" }, box, h("code", {}, box.value)));
    let made = null;
    const submit = async () => {
      const chosen = boxes.filter((box) => box.checked).map((box) => box.value);
      if (!chosen.length) throw new Error("Choose at least one scope.");
      const body = { name: name.value, scopes: chosen, ...(expires.value && { expiresAt: new Date(expires.value).toISOString() }) };
      made = await this.session.api.post(`/spaces/${this.id}/tokens`, JSON.stringify(body));
      await this.#load();
    };
    const body = [field("Name", name), h("div", { class: "presets" }, "Scopes of a", ...presets), h("div", { class: "checks" }, ...scopes), field("Expires", expires, "Empty: never.")];
    await ask({ title: "New key", body, action: "Make the key", submit });
    if (made) await reveal(made);
  }
}

function reveal({ key, name }) {
  const shown = h("code", { class: "secret", tabindex: 0 }, key);
  return tell(`The key ${visible(name)}`, h("p", {}, "This is the only time it is shown."), shown, copyButton(() => key, "Copy the key"));
}
