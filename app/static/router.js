// Which page an address names. Addresses live behind the #, so that the server has one page and a link can be shared.
// Pure, but for `go`.

/** The route of a hash: `{page, id?, seq?, query}`. */
export function route(hash) {
  const [path, search = ""] = hash.replace(/^#\/?/, "").split("?");
  const query = Object.fromEntries(new URLSearchParams(search));
  const [first, id, last] = path.split("/").map(decoded);
  if (id === null) return { page: "missing", query };
  if (first === "spaces" && id && (last === "keys" || last === "settings")) return { page: last, id, query };
  if (first === "spaces" && id) return { page: "space", id, query };
  if (first === "jobs" && id) return { page: "job", id, seq: /^[1-9]\d{0,15}$/.test(last ?? "") ? Number(last) : null, query };
  return { page: !first || (first === "spaces" && !id) ? "home" : "missing", query };
}

/** A part of a path; null for one that says nothing. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return null;
  }
}

function queried(query) {
  const search = new URLSearchParams(Object.entries(query).filter(([, value]) => value)).toString();
  return search && `?${search}`;
}

/** The address of a space's overview. */
export function spaceAddress(id, query = {}) {
  return `#/spaces/${encodeURIComponent(id)}${queried(query)}`;
}

/** The address of a space's keys. */
export function keysAddress(id) {
  return `#/spaces/${encodeURIComponent(id)}/keys`;
}

/** The address of a space's settings. */
export function settingsAddress(id) {
  return `#/spaces/${encodeURIComponent(id)}/settings`;
}

/** The address of a job, or of one line of its log; `query` is how the log is looked at: q, level, at. */
export function jobAddress(id, seq = null, query = {}) {
  return `#/jobs/${encodeURIComponent(id)}${seq ? `/${seq}` : ""}${queried(query)}`;
}

/** Open an address. */
export function go(address) {
  location.hash = address;
}
