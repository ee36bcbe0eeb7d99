// The service's HTTP API, as this page calls it.
//
// Owns: the key's header, errors as ApiError, JSON with exact numbers. Never: keeps the key anywhere else, tries again
// by itself, or puts a key into an address.

import { parse } from "./json_text.js";
import { learnClock } from "./time.js";

/** Beside the folder of this file, wherever a proxy has put it. */
const BASE = new URL("../api/v1", import.meta.url).href;

/** A refusal. `status` is 0 when no answer came. */
export class ApiError extends Error {
  constructor(status, code, text) {
    super(text);
    this.status = status;
    this.code = code;
  }
}

/** The API with one key. `onRefused` is called when the key does not work any more. */
export class Api {
  constructor(key, onRefused = () => {}) {
    this.key = key;
    this.onRefused = onRefused;
  }

  /** The answer to a GET; `query` members that are null or empty are left out. */
  async get(path, query = {}, signal = undefined) {
    return (await this.page(path, query, signal)).body;
  }

  /** The same as `{body, total}`, total being `x-total-count`. */
  async page(path, query = {}, signal = undefined) {
    const answer = await this.fetch(path + search(query), { signal });
    return { body: parse(await answer.text()), total: Number(answer.headers.get("x-total-count") ?? 0) };
  }

  /** The answer to a POST of a JSON text. */
  async post(path, text = "", headers = {}) {
    const answer = await this.fetch(path, { method: "POST", body: text || undefined, headers });
    return parse(await answer.text());
  }

  /** The answer to a PATCH of a JSON text. */
  async patch(path, text) {
    const answer = await this.fetch(path, { method: "PATCH", body: text });
    return parse(await answer.text());
  }

  /** DELETE. */
  async remove(path) {
    await this.fetch(path, { method: "DELETE" });
  }

  /** A whole answer, its body unread. Throws ApiError for a refusal, AbortError when the signal says so. */
  async fetch(path, { method = "GET", headers = {}, body = undefined, signal = undefined } = {}) {
    const answer = await this.#send(BASE + path, {
      method,
      body,
      signal,
      headers: { "x-api-key": this.key, ...(body && { "content-type": "application/json" }), ...headers },
      cache: "no-store",
    });
    learnClock(answer.headers.get("date"));
    if (answer.ok) return answer;
    const error = await refusal(answer);
    if (error.status === 401) this.onRefused(error);
    throw error;
  }

  async #send(url, options) {
    try {
      return await fetch(url, options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, "unreachable", "The service does not answer.");
    }
  }
}

/** The key that a one-time ticket stands for. Throws ApiError. */
export async function exchange(ticket) {
  const answer = await fetch(new URL("../tickets/exchange", import.meta.url), { method: "POST", headers: { "x-ticket": ticket }, cache: "no-store" });
  if (!answer.ok) throw await refusal(answer);
  return (await answer.json()).key;
}

async function refusal(answer) {
  try {
    const { error, code } = await answer.json();
    return new ApiError(answer.status, code, error);
  } catch {
    return new ApiError(answer.status, "", `The service answered ${answer.status}.`);
  }
}

function search(query) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length ? `?${new URLSearchParams(given)}` : "";
}
