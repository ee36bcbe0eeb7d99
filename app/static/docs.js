// The API for people: /openapi.json, drawn.
//
// Owns: one section for each call. Never: asks anything but this server, or takes text of the document for markup.

import { fill, h } from "./dom.js";

const DOCUMENT = new URL("openapi.json", location.href);
const METHODS = ["get", "post", "patch", "delete"];
const DEEP = 3;

const main = document.querySelector("main");
const nav = document.querySelector("nav");

start().catch((error) => fill(main, h("p", {}, `The document cannot be drawn: ${error.message}`)));

async function start() {
  const response = await fetch(DOCUMENT);
  const api = await response.json();
  const calls = callsOf(api);
  fill(nav, h("h1", {}, api.info.title), api.tags.map((tag) => group(tag, calls)));
  fill(main, heading(api), calls.map((call) => section(call, api)));
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

function callsOf(api) {
  return Object.entries(api.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => ({ path, method, item, ...item[method] })),
  );
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
    found.example !== undefined && [h("h3", {}, "Example"), h("pre", {}, curl(call, found.example, api))],
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
