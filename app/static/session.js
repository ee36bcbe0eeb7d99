// Who is signed in. The key is kept in this tab's session storage only, and goes with it.

import { Api } from "./api.js";

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

/** Sign in, and remember the key. Throws ApiError. `onRefused` hears when the key stops working. */
export async function signIn(key, onRefused) {
  const api = new Api(key);
  const session = new Session(api, await api.get("/whoami"));
  sessionStorage.setItem(KEY, key);
  api.onRefused = onRefused;
  return session;
}

/** Sign in with the key that this tab remembers: a Session, or null. Throws ApiError unless the key is the reason. */
export async function resume(onRefused) {
  const key = sessionStorage.getItem(KEY);
  if (!key) return null;
  try {
    return await signIn(key, onRefused);
  } catch (error) {
    if (error.status !== 401) throw error;
    signOut();
    return null;
  }
}

/** Forget the key. */
export function signOut() {
  sessionStorage.removeItem(KEY);
}
