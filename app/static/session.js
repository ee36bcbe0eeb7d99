// Who is signed in. The key is kept in this tab's session storage and goes with it; on this device, for new tabs, too, if
// somebody asked for that, until signing out.

import { Api, exchange } from "./api.js";

const KEY = "jobwire.key";

/** A signed-in key: the API, and what the key may do. */
export class Session {
  constructor(api, who) {
    this.api = api;
    this.root = who.root;
    this.space = who.space;
    this.spaceName = who.spaceName;
    this.scopes = new Set(who.scopes);
  }

  /** Whether the key has a scope. */
  can(scope) {
    return this.scopes.has(scope);
  }
}

/** Sign in, and keep the key: in this tab, or on this device. Throws ApiError. `onRefused` hears when it stops working. */
export async function signIn(key, onRefused, remember = false) {
  const api = new Api(key);
  const session = new Session(api, await api.get("/whoami"));
  sessionStorage.setItem(KEY, key);
  if (remember) localStorage.setItem(KEY, key);
  api.onRefused = onRefused;
  return session;
}

/** Sign in with the key that this tab or this device remembers: a Session, or null. Throws ApiError unless the key is the reason. */
export async function resume(onRefused) {
  const key = sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY);
  if (!key) return null;
  try {
    return await signIn(key, onRefused);
  } catch (error) {
    if (error.status !== 401) throw error;
    signOut();
    return null;
  }
}

/** Sign in with the one-time ticket that the address carries, if it does: a Session, or null. Throws ApiError. */
export async function redeem(onRefused) {
  const [, ticket] = location.hash.match(/^#\/ticket\/([\w-]+)$/) ?? [];
  if (!ticket) return null;
  history.replaceState(null, "", "#/");
  return signIn(await exchange(ticket), onRefused);
}

/** Forget the key, here and, if it is this one, on this device. */
export function signOut() {
  const key = sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY);
  sessionStorage.removeItem(KEY);
  if (localStorage.getItem(KEY) === key) localStorage.removeItem(KEY);
}

/** Hear when another tab made this device forget the key of this one. */
export function onForgotten(listener) {
  addEventListener("storage", ({ key, oldValue, newValue }) => {
    if (key === KEY && newValue === null && oldValue === sessionStorage.getItem(KEY)) listener();
  });
}
