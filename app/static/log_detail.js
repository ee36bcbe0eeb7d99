// All of one line: its whole message, where and when it was said, its metadata.

import { plain, visible } from "./ansi.js";
import { copyButton } from "./copy.js";
import { button, fill, h } from "./dom.js";
import { container } from "./json_text.js";
import { jsonView } from "./json_view.js";
import { appendText } from "./log_line.js";
import { jobAddress } from "./router.js";
import { clock, count, moment } from "./time.js";

/** The drawer below a log. `open(seq)` reads the line anew, for its numbers as they were written. */
export class LineDetail {
  constructor(view) {
    this.view = view;
    this.element = h("aside", { class: "detail", hidden: true, "aria-label": "Line" });
  }

  async open(seq) {
    try {
      const row = await this.view.source.line(seq, this.view.signal);
      if (this.view.selected !== seq) return;
      this.element.hidden = false;
      if (row?.seq === seq) fill(this.element, ...this.#content(row));
      else fill(this.element, h("p", {}, `Line ${count(seq)} is not there.`), this.#close());
      this.view.pages.line(seq)?.scrollIntoView({ block: "nearest" });
    } catch (error) {
      if (error.name !== "AbortError") fill(this.element, h("p", { class: "problem" }, error.message), this.#close());
    }
  }

  close() {
    this.element.hidden = true;
    fill(this.element);
  }

  #content(row) {
    const message = h("pre", { class: "message", tabindex: 0 });
    appendText(message, row.message, this.view.pages.wanted);
    const link = () => location.origin + location.pathname + jobAddress(this.view.jobId, row.seq);
    const context = this.view.source.filtered && button("In context", () => this.view.toolbar.clear(), { class: "quiet" });
    return [
      h(
        "header",
        {},
        h("b", {}, `Line ${count(row.seq)}`),
        h("span", { class: `level ${row.level}` }, row.level),
        h("span", {}, `${moment(row.loggedAt).slice(0, 10)} ${clock(row.loggedAt)}`),
        row.source && h("span", { class: "source" }, visible(row.source)),
        h("span", { class: "gap" }),
        context,
        copyButton(() => plain(row.message), "Copy text"),
        copyButton(link, "Copy link"),
        this.#close(),
      ),
      message,
      container(row.message) && jsonView(container(row.message)),
      row.metadata && jsonView(row.metadata),
    ].filter(Boolean);
  }

  #close() {
    return button("Close", () => this.view.select(null), { class: "quiet", title: "Close (Esc)" });
  }
}
