// The dashboard: who is signed in, which page is shown. The wiring, no more.

import { fill } from "./dom.js";
import { HomeView } from "./home_view.js";
import { JobView } from "./job_view.js";
import { KeysView } from "./keys_view.js";
import { LostView } from "./lost.js";
import { NarrowView, ProgressView } from "./progress_view.js";
import { route } from "./router.js";
import { onForgotten, redeem, resume, signIn, signOut } from "./session.js";
import { SettingsView } from "./settings_view.js";
import { Shell } from "./shell.js";
import { listenToKeys, showKeys } from "./shortcuts.js";
import { signInPage } from "./sign_in.js";
import { SpaceView } from "./space_view.js";
import { useTheme } from "./theme.js";

/** What a key that may not read jobs is shown instead. */
const NARROW = { home: NarrowView, space: NarrowView, job: ProgressView };
const VIEWS = { home: HomeView, space: SpaceView, keys: KeysView, settings: SettingsView, job: JobView, missing: LostView };

const app = document.getElementById("app");
let session = null;
let shell = null;
let shown = null;

/** Every shortcut of the page that is shown. */
function shortcuts() {
  if (!shown) return {};
  return { ...shown.view.shortcuts(), "?": ["These keys", () => showKeys(shortcuts())] };
}

function leave(why = "") {
  signOut();
  shown?.abort.abort();
  [session, shell, shown] = [null, null, null];
  askForKey(why);
}

function askForKey(why) {
  const page = signInPage(async (key, remember) => enter(await signIn(key, refused, remember)), why);
  fill(app, page);
  page.querySelector("input[type=password]").focus();
}

function refused(error) {
  leave(error.message);
}

function enter(signedIn) {
  session = signedIn;
  shell = new Shell(session, { signOut: () => leave(), showKeys: () => showKeys(shortcuts()) });
  fill(app, shell.element);
  open();
}

/** Show the page that the address names. */
function open() {
  if (!session) return;
  const to = route(location.hash);
  if (shown && to.page === "job" && shown.to.page === "job" && shown.to.id === to.id) return shown.view.update?.(to);
  shown?.abort.abort();
  const abort = new AbortController();
  const views = session.can("jobs:read") ? VIEWS : { ...VIEWS, ...NARROW };
  const view = new views[to.page](session, shell, to, abort.signal);
  shown = { to, view, abort };
  shell.page(view.element);
  const at = to.page === "keys" || to.page === "settings" ? to.page : "";
  shell.place(at || to.page === "space" ? to.id : session.space, at);
  view.start();
}

useTheme();
addEventListener("hashchange", open);
onForgotten(() => session && leave("You signed out in another tab."));
listenToKeys(shortcuts);
try {
  const resumed = (await redeem(refused)) ?? (await resume(refused));
  if (resumed) enter(resumed);
  else askForKey();
} catch (error) {
  askForKey(error.message);
}
