// The form that creates a job.

import { ask, field } from "./dialog.js";
import { h } from "./dom.js";
import { go, jobAddress } from "./router.js";

/** Ask for a new job, create it once, and open it. */
export function createJob(session, spaceId, like = {}) {
  const name = h("input", { required: true, maxlength: 200, value: like.name ?? "", autofocus: true });
  const payload = h("textarea", { rows: 6, spellcheck: "false", class: "code", value: like.payload ?? "null" });
  const retries = number(like.maxRetries ?? 3, 0, 25);
  const timeout = number(like.timeoutSeconds ?? 300, 1, 86_400);
  const delay = number(0, 0, 86_400);
  const scheduled = h("input", { type: "datetime-local", step: 1 });
  const callback = h("input", { type: "url", maxlength: 2048, placeholder: "https://", value: like.callbackUrl ?? "" });
  const once = { "idempotency-key": crypto.getRandomValues(new Uint32Array(4)).join("-") };
  const submit = async () => {
    const body = text(payload.value, {
      name: name.value,
      maxRetries: Number(retries.value),
      timeoutSeconds: Number(timeout.value),
      ...(Number(delay.value) && { retryDelaySeconds: Number(delay.value) }),
      ...(scheduled.value && { scheduledFor: new Date(scheduled.value).toISOString() }),
      ...(callback.value && { callbackUrl: callback.value }),
    });
    const job = await session.api.post(`/spaces/${spaceId}/jobs`, body, once);
    go(jobAddress(job.id));
  };
  const numbers = h("div", { class: "fields" }, field("Retries", retries), field("Timeout, s", timeout), field("Retry delay, s", delay));
  const body = [
    field("Name", name),
    field("Payload, JSON", payload),
    numbers,
    field("Not before", scheduled, "Empty: at once."),
    field("Callback URL", callback),
  ];
  return ask({ title: "Create a job", body, action: "Create", submit });
}

/** The request's text. The payload goes in as it was typed, so that its numbers stay what they are. */
export function text(payload, fields) {
  try {
    JSON.parse(payload.trim() || "null");
  } catch (error) {
    throw new Error(`The payload is not JSON: ${error.message}`);
  }
  return `${JSON.stringify(fields).slice(0, -1)},"payload":${payload.trim() || "null"}}`;
}

function number(value, min, max) {
  return h("input", { type: "number", required: true, min, max, value });
}
