// The API for people: /openapi.json, drawn.
//
// Owns: one section for each call. Never: asks anything but this server, or takes text of the document for markup.

import { fill, h } from "./dom.js";

const DOCUMENT = new URL("openapi.json", location.href);
const METHODS = ["get", "post", "patch", "delete"];

/** The calls in the order of a job's life, from the key on; what is not named here comes after. */
const LIFE = [
  "get /whoami",
  "post /spaces",
  "post /spaces/{space_id}/tokens",
  "post /spaces/{space_id}/jobs",
  "post /spaces/{space_id}/jobs/poll",
  "post /jobs/{job_id}/claim",
  "post /jobs/{job_id}/ack",
  "post /jobs/{job_id}/keepalive",
  "post /jobs/{job_id}/progress",
  "post /jobs/{job_id}/checkpoint",
  "post /jobs/{job_id}/logs",
  "post /jobs/{job_id}/event",
  "post /jobs/{job_id}/complete",
  "post /jobs/{job_id}/fail",
  "get /jobs/{job_id}",
  "get /jobs/{job_id}/progress",
  "get /jobs/{job_id}/logs",
  "get /jobs/{job_id}/events",
  "get /spaces/{space_id}/jobs",
  "post /jobs/{job_id}/kill",
  "post /jobs/{job_id}/retry",
  "post /jobs/{job_id}/callback/retry",
  "delete /jobs/{job_id}",
];

/** What to type first: each step's sentence, method, path and body. */
const BEGIN = [
  ["Create a job. The answer has its id.", "POST", "/spaces/$SPACE/jobs", '{"name": "resize", "payload": {"image": "cat.jpg"}}'],
  ["As a worker, take the job. The answer has its leaseToken.", "POST", "/spaces/$SPACE/jobs/poll", '{"names": ["resize"], "waitSeconds": 20}'],
  ["Say that it has begun.", "POST", "/jobs/$JOB/ack", ""],
  ["Report progress.", "POST", "/jobs/$JOB/progress", '{"percent": 40, "message": "half way"}'],
  ["", "POST", "/jobs/$JOB/logs", '["opened cat.jpg", "resized"]'],
  ["End it.", "POST", "/jobs/$JOB/complete", '{"width": 640}'],
  ["Look at it.", "GET", "/jobs/$JOB", ""],
];
const DEEP = 3;

const main = document.querySelector("main");
const nav = document.querySelector("nav");

start().catch((error) => fill(main, h("p", {}, `The document cannot be drawn: ${error.message}`)));

async function start() {
  const response = await fetch(DOCUMENT);
  const api = await response.json();
  const calls = callsOf(api);
  fill(nav, h("p", { class: "title" }, h("a", { href: "./" }, api.info.title)), h("a", { href: "#begin" }, "Keys, and the first job"), api.tags.map((tag) => group(tag, calls)));
  fill(main, heading(api), begin(api), calls.map((call) => section(call, api)));
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

function callsOf(api) {
  const calls = Object.entries(api.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => ({ path, method, item, ...item[method] })),
  );
  const age = ({ method, path }) => (LIFE.indexOf(`${method} ${path}`) + LIFE.length + 1) % (LIFE.length + 1);
  return calls.sort((a, b) => age(a) - age(b));
}

function group(tag, calls) {
  const links = calls.filter((call) => call.tags.includes(tag.name)).map((call) => h("a", { href: `#${call.operationId}` }, title(call)));
  return [h("h2", {}, tag.description), links];
}

function heading(api) {
  return [
    h("h1", {}, `${api.info.title} ${api.info.version}`),
    h("p", {}, api.info.description),
    h("p", {}, "Base path ", h("code", {}, base(api).pathname), ". For machines: ", link("openapi.json"), ", the streams as ", link("asyncapi.json"), "."),
  ];
}

/** Where the calls are: the document says it as seen from itself. https://spec.openapis.org/oas/v3.1.1#relative-references-in-api-urls */
function base(api) {
  return new URL(api.servers[0].url, DOCUMENT);
}

/** Keys and curl: a job from its creation to its end. */
function begin(api) {
  const callsAt = base(api).href.replace(/\/$/, "");
  const calls = BEGIN.map(([said, method, path, body]) => [
    said && h("p", {}, said),
    h("pre", { tabindex: 0 }, [`curl "${callsAt}${path}" -H "x-api-key: $JOBWIRE_KEY"`, method === "GET" ? "" : ` -X ${method}`, body && ` -d '${body}'`].join("")),
  ]);
  return h(
    "div",
    { class: "begin", id: "begin" },
    h("h2", {}, "Keys, and the first job"),
    h("p", {}, "Every call carries a key in the header ", h("code", {}, "x-api-key"), ". A key belongs to a space and has scopes; the root key, which ", h("code", {}, "jobwire up"), " printed at its first start, makes spaces and keys, here or on ", h("a", { href: "./" }, "the page"), ". Set ", h("code", {}, "JOBWIRE_KEY"), ", and ask what it is for:"),
    h("pre", { tabindex: 0 }, `export JOBWIRE_KEY=emit_...\ncurl "${callsAt}/whoami" -H "x-api-key: $JOBWIRE_KEY"`),
    h("p", {}, "The answer names the space. With it in ", h("code", {}, "SPACE"), " and the id of a job in ", h("code", {}, "JOB"), ":"),
    calls,
  );
}

function link(path) {
  return h("a", { href: path }, path);
}

function title(call) {
  return [h("span", { class: "method", dataset: { method: call.method } }, call.method.toUpperCase()), ` ${call.path}`];
}

function section(call, api) {
  const parameters = [...(call.item.parameters ?? []), ...call.parameters];
  return h(
    "section",
    { id: call.operationId },
    h("h2", {}, title(call)),
    h("p", {}, spoken(call.summary)),
    h("p", { class: "kind" }, spoken(call.description)),
    parameters.length > 0 && [h("h3", {}, "Parameters"), h("dl", {}, parameters.flatMap((each) => parameter(each, api)))],
    call.requestBody && body(call, api),
    h("h3", {}, "Answers"),
    Object.entries(call.responses).map(([status, found]) => answer(status, found, api)),
  );
}

function parameter(each, api) {
  return [
    h("dt", {}, each.name),
    h("dd", {}, each.description, " ", h("span", { class: "kind" }, `${each.in}, ${kindOf(each.schema, api)}`)),
  ];
}

function body(call, api) {
  const found = call.requestBody.content["application/json"];
  return [
    h("h3", {}, call.requestBody.required ? "Body" : "Body (may be empty)"),
    shape(found.schema, api, 0),
    found.example !== undefined && [h("h3", {}, "Example"), h("pre", { tabindex: 0 }, curl(call, found.example, api))],
  ];
}

function curl(call, example, api) {
  const head = `curl ${base(api)}${call.path} -H "x-api-key: $JOBWIRE_KEY"`;
  return `${head} -X ${call.method.toUpperCase()} -d '${JSON.stringify(example, null, 1).replaceAll("'", "'\\''")}'`;
}

function answer(status, found, api) {
  const schema = found.content?.["application/json"]?.schema;
  const says = status.startsWith("2") ? "" : [" ", spoken(found.description)];
  if (!schema || !status.startsWith("2")) return h("div", {}, h("strong", {}, status), says);
  return h("details", {}, h("summary", {}, h("strong", {}, status), ` ${kindOf(schema, api)}`), shape(schema, api, 0));
}

/** A sentence, with what stands in backticks as code. */
function spoken(text) {
  return text.split("`").map((part, i) => (i % 2 ? h("code", {}, part) : part));
}

/** The members of a type, nested ones to be opened. */
function shape(schema, api, depth) {
  const found = resolve(schema, api);
  if (found.anyOf) return found.anyOf.map((each) => shape(each, api, depth));
  if (found.items) return shape(found.items, api, depth);
  if (!found.properties || depth > DEEP) return h("p", { class: "kind" }, kindOf(found, api));
  return [
    h("p", { class: "kind" }, found.description ?? ""),
    h("dl", {}, Object.entries(found.properties).flatMap(([name, each]) => member(name, each, found, api, depth))),
  ];
}

function member(name, each, owner, api, depth) {
  const needed = (owner.required ?? []).includes(name) ? "" : "optional, ";
  const inner = nested(each, api);
  const said = h("span", { class: "kind" }, `${needed}${kindOf(each, api)}${limits(each)}`);
  return [h("dt", {}, name), h("dd", {}, said, inner && h("details", {}, h("summary", {}, "members"), shape(inner, api, depth + 1)))];
}

/** The first type with members of its own that a member may have, or undefined. */
function nested(schema, api) {
  const found = resolve(schema, api);
  if (found.properties) return found;
  return [...(found.anyOf ?? []), ...(found.items ? [found.items] : [])].map((each) => nested(each, api)).find(Boolean);
}

function kindOf(schema, api) {
  const found = resolve(schema, api);
  if (found.anyOf) return [...new Set(found.anyOf.map((each) => kindOf(each, api)))].join(" or ");
  if (found.enum) return found.enum.join(" | ");
  if (found.type === "array") return `array of ${found.items ? kindOf(found.items, api) : "anything"}`;
  return found.title ?? found.type ?? "any JSON";
}

function limits(schema) {
  const words = { minimum: "from", maximum: "to", minLength: "at least", maxLength: "at most", maxItems: "at most", default: "default" };
  const told = Object.entries(words).filter(([name]) => schema[name] !== undefined && schema[name] !== null);
  return told.map(([name, word]) => `, ${word} ${JSON.stringify(schema[name])}`).join("");
}

function resolve(schema, api) {
  return schema.$ref ? api.components.schemas[schema.$ref.split("/").at(-1)] : schema;
}
