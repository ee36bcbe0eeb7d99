// The log of a job: tail first, both ways by pages, live, filtered, searched.
//
// Owns: what is loaded when, and whether the view follows; log_lines_view.js draws what was loaded.
// Always: at most a few pages of lines are held, however long the log is and however fast it grows; lines stand in the
// order of seq, without a hole and without a twin.

import { h } from "./dom.js";
import { LineDetail } from "./log_detail.js";
import { LogLinesView } from "./log_lines_view.js";
import { LogRail } from "./log_rail.js";
import { LogSource } from "./log_source.js";
import { LogToolbar } from "./log_toolbar.js";
import { LogWindow } from "./log_window.js";
import { jobAddress } from "./router.js";
import { needles } from "./search.js";
import { count } from "./time.js";

const HELD_LINES = 3000;
const FOLLOWED_LINES = 1000;
const AHEAD_PX = 1500;
const END_PX = 24;
const QUEUE_MOST = 4000;
const FLUSH_LINES = 250;
const FLUSH_MS = 40;
const STATUS_MS = 100;
const CATCH_UP_MS = 250;
const PLACE_MS = 300;
const HALF = 250;

/** A log viewer. `lines(rows)` and `head(seq)` tell it what came; `start(to)` loads what an address names. */
export class LogView {
  constructor(session, jobId, signal) {
    Object.assign(this, { session, jobId, signal });
    this.window = new LogWindow(HELD_LINES, FOLLOWED_LINES);
    this.source = new LogSource(session.api, jobId, { q: "", levels: [] });
    this.pages = new LogLinesView(jobId);
    this.rail = new LogRail((seq) => this.jump(seq));
    this.toolbar = new LogToolbar(this);
    this.detail = new LineDetail(this);
    this.first = 1;
    this.newest = 0;
    this.below = 0;
    this.queue = [];
    this.flushed_ms = 0;
    this.following = true;
    this.live = null;
    this.element = h(
      "section",
      { class: "log", "aria-label": "Log" },
      this.toolbar.element,
      h("div", { class: "view" }, this.pages.element, this.rail.element, this.toolbar.jump),
      this.detail.element,
    );
    this.#listen();
  }

  /** Load the tail, or what an address names: lines that match, a line, a place where somebody read. */
  async start({ seq, query }) {
    this.placed = location.hash;
    this.#look(this.toolbar.read(query));
    const at = Number(query.at);
    if (seq) await this.jump(seq, { select: true });
    else if (at > 0) await this.jump(at, { block: "start" });
    else await this.toTail();
  }

  /** Look at what another address names, unless it is what is shown. */
  open(to) {
    this.placed = location.hash;
    const { q, levels } = this.source.filter;
    const same = (to.query.q ?? "") === q && (to.query.level ?? "") === levels.join(",");
    if (!same) return this.start(to);
    return to.seq && to.seq !== this.selected ? this.jump(to.seq, { select: true }) : null;
  }

  // What comes live

  /** New lines, ascending. */
  lines(rows) {
    if (this.following && !this.source.filtered && !document.hidden) this.queue.push(...rows);
    if (this.queue.length > QUEUE_MOST) this.queue = [];
    if (this.queue.length) this.frame ||= requestAnimationFrame(() => this.#flush());
    this.head(rows.at(-1).seq);
  }

  /** The newest line is now this one. */
  head(seq) {
    if (seq <= this.newest) return;
    this.newest = seq;
    this.window.hasNewer ||= !this.following;
    this.#statusSoon();
    this.#more();
  }

  /** Whether lines come by themselves. */
  setLive(live) {
    this.live = live;
    this.#statusSoon();
  }

  /** None come by themselves: read those that there are. */
  poll() {
    if (this.following && !this.loading && !document.hidden) this.#loadNewer();
  }

  /** The log is not what it was: begin anew. */
  reset() {
    this.newest = 0;
    this.window.clear();
    return this.toTail();
  }

  /** Show lines that came: often enough to look smooth, seldom enough to leave most frames to the reader. */
  #flush() {
    this.frame = 0;
    if (performance.now() - this.flushed_ms < FLUSH_MS) {
      this.frame = requestAnimationFrame(() => this.#flush());
      return;
    }
    this.flushed_ms = performance.now();
    const rows = this.queue.splice(0, FLUSH_LINES);
    if (this.queue.length) this.frame = requestAnimationFrame(() => this.#flush());
    const fresh = this.loading || this.source.filtered ? null : this.window.next(rows);
    if (fresh?.length && this.following) {
      this.pages.grow(fresh, this.window.grow(fresh));
      this.pages.toEnd();
    }
    this.#more();
    this.#statusSoon();
  }

  /** Whether lines are missing at the end. */
  #behind() {
    return this.newest > (this.window.newest ?? 0) && !this.queue.length;
  }

  /** Read what is missing at the end. More than anybody can read is left out: it is a scroll away. */
  #catchUp() {
    this.caughtUp_ms = performance.now();
    const { newest } = this.window;
    if (newest === null || (!this.source.filtered && this.newest - newest > QUEUE_MOST)) this.toTail();
    else this.#loadNewer();
  }

  // Where to look

  /** The newest lines, and follow. */
  async toTail() {
    this.setFollowing(true);
    await this.#load((signal) => this.source.tail(signal), (page) => {
      this.#begin(page, { hasOlder: page.hasMore, hasNewer: false });
      this.head(page.newest ?? 0);
      this.pages.toEnd();
    });
  }

  /** The first lines of the log. */
  async toStart() {
    await this.#around(this.first);
    this.pages.toStart();
  }

  /** The lines around a seq; selected as by a permalink if asked. */
  async jump(seq, { select = false, block = "center" } = {}) {
    this.setFollowing(false);
    this.held = true;
    if (!this.pages.line(seq)) await this.#around(seq);
    this.pages.reveal(seq, block);
    if (select) this.select(seq);
    this.#status();
  }

  /** Follow the end, or stay where one is. */
  setFollowing(following) {
    this.following = following;
    if (!following) this.queue = [];
    this.#status();
  }

  /** Pause, or go on at the end. */
  toggleFollowing() {
    if (!this.following) return this.toTail();
    this.held = true;
    return this.setFollowing(false);
  }

  /** Show only some lines: `{q, levels}`. Back to the place of the selected line when nothing is left out any more. */
  async filter(filter) {
    this.#look(filter);
    this.#placeSoon();
    if (this.source.filtered || !this.selected) return this.toTail();
    this.window.clear();
    this.pages.begin([]);
    return this.jump(this.selected);
  }

  /** Select a line: its details, and its address in the address bar. */
  select(seq) {
    this.pages.element.querySelector(".line.selected")?.classList.remove("selected");
    this.selected = seq;
    this.#place();
    if (!seq) return this.detail.close();
    this.#mark();
    return this.detail.open(seq);
  }

  /** Select the line before or after the selected one. */
  selectNext(by) {
    const lines = [...this.pages.element.querySelectorAll(".line")];
    const at = lines.findIndex((line) => Number(line.dataset.seq) === this.selected);
    const line = at < 0 ? lines.at(-1) : lines[at + by];
    if (!line) return;
    this.setFollowing(false);
    this.select(Number(line.dataset.seq));
    line.scrollIntoView({ block: "nearest" });
  }

  /** The job has ended, or not. */
  setEnded(ended) {
    this.ended = ended;
    this.#statusSoon();
  }

  #look(filter) {
    this.pages.wanted = needles(filter.q);
    this.source = new LogSource(this.session.api, this.jobId, filter);
    this.abort?.abort();
    this.loading = null;
  }

  #placeSoon() {
    this.placing ||= setTimeout(() => this.#place(), PLACE_MS);
  }

  /** Put what is looked at into the address bar: a reload, a link and the way back lead to it. An address that somebody has
   *  just gone to, and that is not shown yet, is left alone. */
  #place() {
    clearTimeout(this.placing);
    this.placing = 0;
    if (this.signal.aborted || location.hash !== this.placed) return;
    const { q, levels } = this.source.filter;
    const [at] = (!this.following && !this.selected && this.pages.visible()) || [];
    const address = jobAddress(this.jobId, this.selected, { q, level: levels.join(","), at });
    if (address !== location.hash) history.replaceState(null, "", address);
    this.placed = location.hash;
  }

  // Loading

  #around(seq) {
    const read = async (signal) => {
      const [older, newer] = await Promise.all([
        seq > 1 ? this.source.before(seq, signal, HALF) : { rows: [], oldest: null, hasMore: false },
        this.source.after(Math.max(0, seq - 1), signal, HALF),
      ]);
      return { older, newer };
    };
    return this.#load(read, ({ older, newer }) => {
      const page = { ...newer, rows: [...older.rows, ...newer.rows], oldest: older.oldest ?? newer.oldest };
      this.#begin(page, { hasOlder: older.hasMore, hasNewer: newer.hasMore });
    });
  }

  #loadOlder() {
    return this.#load((signal) => this.source.before(this.window.oldest, signal), (page) => {
      this.first = page.firstSeq ?? this.first;
      this.pages.prepend(page.rows, this.window.prepend(page));
    });
  }

  #loadNewer() {
    return this.#load((signal) => this.source.after(this.window.newest ?? 0, signal), (page) => {
      this.pages.append(page.rows, this.window.append(page));
      this.head(page.newest ?? 0);
      if (this.following) this.pages.toEnd();
    });
  }

  /** One load at a time; a newer wish (a jump, another filter) ends the one under way. */
  async #load(read, use) {
    this.abort?.abort();
    const abort = (this.abort = new AbortController());
    const loading = (this.loading = read(AbortSignal.any([this.signal, abort.signal])));
    this.#status();
    try {
      const page = await loading;
      if (this.loading !== loading) return;
      use(page);
      this.problem = null;
    } catch (error) {
      if (error.name === "AbortError" || this.loading !== loading) return;
      this.problem = error;
    }
    this.loading = null;
    this.#mark();
    this.#status();
    if (!this.problem) requestAnimationFrame(() => this.#more());
  }

  #begin(page, ends) {
    this.first = page.firstSeq ?? this.first;
    this.queue = [];
    this.window.begin(page, ends);
    this.pages.begin(page.rows);
  }

  /** Load what is missing at the end, then what is about to be seen. A search goes on through empty pages by this, too. */
  #more() {
    if (this.loading || this.signal.aborted || document.hidden) return;
    if (this.following && this.#behind()) {
      const wait_ms = (this.caughtUp_ms ?? 0) + CATCH_UP_MS - performance.now();
      if (wait_ms <= 0) return this.#catchUp();
      this.timer ||= setTimeout(() => {
        this.timer = 0;
        this.#more();
      }, wait_ms);
    }
    const { above, below } = this.pages.room();
    if (this.window.hasOlder && above < AHEAD_PX) return this.#loadOlder();
    if (this.window.hasNewer && below < AHEAD_PX && !this.following) return this.#loadNewer();
    return null;
  }

  // The page

  #listen() {
    const lines = this.pages.element;
    lines.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    lines.addEventListener("click", (event) => this.#clicked(event));
    const observer = new ResizeObserver(() => this.following && this.pages.toEnd());
    observer.observe(lines);
    for (const name of ["wheel", "touchmove", "keydown"]) lines.addEventListener(name, () => (this.held = false), { passive: true });
    document.addEventListener("visibilitychange", () => this.#more(), { signal: this.signal });
    this.signal.addEventListener("abort", () => observer.disconnect());
  }

  #scrolled() {
    const { below } = this.pages.room();
    if (this.following && below > END_PX) this.setFollowing(false);
    else if (!this.following && below <= 1 && !this.window.hasNewer && !this.held) this.setFollowing(true);
    this.#more();
    this.#statusSoon();
  }

  #clicked(event) {
    const line = event.target.closest(".line");
    const isOwn = event.target.closest("a:not(.seq), button, .json");
    if (!line || isOwn || (!event.target.closest(".seq") && String(getSelection()))) return;
    event.preventDefault();
    this.select(Number(line.dataset.seq));
  }

  #mark() {
    if (this.selected) this.pages.line(this.selected)?.classList.add("selected");
  }

  #statusSoon() {
    this.statusTimer ||= setTimeout(() => this.#status(), STATUS_MS);
  }

  #status() {
    clearTimeout(this.statusTimer);
    this.statusTimer = 0;
    const visible = this.pages.visible();
    this.below = visible ? Math.max(0, this.newest - visible[1]) : 0;
    this.#placeSoon();
    if (visible) this.rail.set(this.first, Math.max(this.newest, visible[1]), ...visible);
    this.toolbar.show();
    this.pages.top.textContent = this.#topText();
    this.pages.bottom.textContent = this.#bottomText();
  }

  #topText() {
    if (this.problem) return this.problem.message;
    const { oldest, hasOlder, length } = this.window;
    if (hasOlder) return this.source.filtered ? `Searching older lines, at ${count(oldest)} ...` : "Loading older lines ...";
    if (this.loading && !length) return "Loading ...";
    if (!length) return this.source.filtered ? "No line matches." : this.ended ? "It ended without a line." : "No lines yet.";
    if (this.first > 1) return `Lines before ${count(this.first)} are not kept any more.`;
    return this.source.filtered ? "The log begins here; no older line matches." : "The log begins here.";
  }

  #bottomText() {
    return this.window.hasNewer && !this.following && this.loading ? "Loading newer lines ..." : "";
  }
}
