// A stream of the service, held open: connects again after a break, from the position where it was.
//
// Owns: the WebSocket, the pauses between attempts. Never: interprets a frame. A browser can send no header with a
// WebSocket, so the key stands in its address: in no history, and in no log of jobwire.

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;
const DONE = 1000;

/** Follow a stream until `signal`. `query()` gives the position to go on from, `onFrame(frame)` gets every frame,
 *  `onState(isLive)` hears of breaks. Resolves when the service has closed it for good. */
export async function follow({ session, path, query, onFrame, onState }, signal) {
  let pause_ms = FIRST_PAUSE_MS;
  while (!signal.aborted) {
    const opened_ms = performance.now();
    const code = await connection(address(session, path, query()), onFrame, onState, signal);
    if (signal.aborted || code === DONE) return;
    onState(false);
    // A refusal looks like any break here. Whether it is the key, an ordinary call tells.
    await session.api.get("/whoami", {}, signal).catch(() => {});
    if (performance.now() - opened_ms > LONGEST_PAUSE_MS) pause_ms = FIRST_PAUSE_MS;
    await pause(pause_ms * (0.75 + Math.random() / 2), signal);
    pause_ms = Math.min(LONGEST_PAUSE_MS, pause_ms * 2);
  }
}

/** One connection, from its opening to its close; resolves to the close code. */
function connection(url, onFrame, onState, signal) {
  return new Promise((resolve) => {
    const socket = new WebSocket(url);
    const leave = () => socket.close();
    signal.addEventListener("abort", leave, { once: true });
    socket.onopen = () => onState(true);
    socket.onmessage = ({ data }) => signal.aborted || onFrame(JSON.parse(data));
    socket.onclose = ({ code }) => {
      signal.removeEventListener("abort", leave);
      resolve(code);
    };
  });
}

function address(session, path, query) {
  const known = Object.entries(query).filter(([, value]) => value !== null && value !== undefined);
  const search = new URLSearchParams([["token", session.api.key], ...known]);
  return `${location.origin.replace(/^http/, "ws")}/api/v1/realtime${path}?${search}`;
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
