// The spaces, for the root key; any other key has one only.

import { visible } from "./ansi.js";
import { ask, field } from "./dialog.js";
import { button, fill, h } from "./dom.js";
import { go, spaceAddress } from "./router.js";
import { STATUSES } from "./status.js";
import { count, moment } from "./time.js";

/** Show all spaces until `signal`; with the key of one space, go there. */
export class HomeView {
  constructor(session, shell, _, signal) {
    Object.assign(this, { session, shell, signal });
    this.list = h("div", { class: "spaces" });
    this.element = h(
      "main",
      { class: "home" },
      h("header", {}, h("h2", {}, "Spaces"), button("New space", () => this.#create(), { class: "primary" })),
      this.list,
    );
  }

  async start() {
    if (!this.session.root) return go(spaceAddress(this.session.space));
    try {
      const spaces = await this.session.api.get("/spaces", {}, this.signal);
      fill(this.list, ...spaces.map(card));
      if (!spaces.length) fill(this.list, h("p", { class: "empty" }, "No spaces yet."));
    } catch (error) {
      if (error.name !== "AbortError") this.shell.problem(error);
    }
  }

  shortcuts() {
    return { c: ["New space", () => this.#create()] };
  }

  #create() {
    const name = h("input", { required: true, maxlength: 200, autofocus: true });
    const submit = async () => go(spaceAddress((await this.session.api.post("/spaces", JSON.stringify({ name: name.value }))).id));
    return ask({ title: "New space", body: [field("Name", name)], action: "Create", submit });
  }
}

function card({ id, name, createdAt, counts }) {
  const there = STATUSES.filter((status) => counts[status]);
  const numbers = there.map((status) => h("span", { class: "badge", dataset: { status } }, h("span", { class: "dot" }), `${count(counts[status])} ${status}`));
  return h(
    "a",
    { class: "card", href: spaceAddress(id) },
    h("b", {}, visible(name)),
    h("code", { class: "id" }, id),
    h("div", { class: "badges" }, ...(numbers.length ? numbers : ["no jobs"])),
    h("small", {}, `since ${moment(createdAt)}`),
  );
}
