// Which page an address names. Addresses live behind the #, so that the server has one page and a link can be shared.
// Pure, but for `go`.

/** The route of a hash: `{page, id?, seq?, query}`. */
export function route(hash) {
  const [path, search = ""] = hash.replace(/^#\/?/, "").split("?");
  const query = Object.fromEntries(new URLSearchParams(search));
  const [first, id, last] = path.split("/").map(decodeURIComponent);
  if (first === "spaces" && id && last === "keys") return { page: "keys", id, query };
  if (first === "spaces" && id) return { page: "space", id, query };
  if (first === "jobs" && id) return { page: "job", id, seq: /^[1-9]\d{0,15}$/.test(last ?? "") ? Number(last) : null, query };
  return { page: "home", query };
}

/** The address of a space's overview. */
export function spaceAddress(id, query = {}) {
  const search = new URLSearchParams(Object.entries(query).filter(([, value]) => value)).toString();
  return `#/spaces/${encodeURIComponent(id)}${search ? `?${search}` : ""}`;
}

/** The address of a space's keys. */
export function keysAddress(id) {
  return `#/spaces/${encodeURIComponent(id)}/keys`;
}

/** The address of a job, or of one line of its log. */
export function jobAddress(id, seq = null) {
  return `#/jobs/${encodeURIComponent(id)}${seq ? `/${seq}` : ""}`;
}

/** Open an address. */
export function go(address) {
  location.hash = address;
}
