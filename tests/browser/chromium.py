"""A headless Chromium, driven over the DevTools protocol: open a page, press keys, ask it things, take its picture.

Owns: the browser's process and its profile, both gone at `close`. Always: what a page complains about (an exception, a
refused load, a violated policy) is kept in `complaints`.
https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--remote-debugging-port=0",
    "--enable-precise-memory-info",
)
START_S = 30.0
END_S = 10.0

# `seen(selector)`: the text of the first such element, scrolled to, if that is what lies on top where it is; else "".
# (innerText alone gives the text of a hidden element, too.)
SEEN = """
  const seen = (selector) => {
    const element = document.querySelector(selector);
    if (!element?.checkVisibility({ opacityProperty: true, visibilityProperty: true })) return "";
    element.scrollIntoView({ block: "nearest" });
    const { left, right, top, bottom } = element.getClientRects()[0] ?? {};
    const on = document.elementFromPoint((left + right) / 2, (top + Math.min(bottom, innerHeight)) / 2);
    return element.contains(on) ? element.innerText : "";
  };
"""

KEYS = {"Enter": ("\r", 13), "Escape": ("", 27), "Tab": ("", 9), "ArrowDown": ("", 40), "End": ("", 35)}


def find() -> str | None:
    """The browser's path, None where there is none: the headless shell first, which is the same without its windows,
    and takes a third of the CPU."""
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


class Chromium:
    """One browser."""

    def __init__(self, program: str) -> None:
        self._profile = tempfile.mkdtemp(prefix="jobwire-chromium-")
        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={self._profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._open = contextlib.ExitStack()
        self._socket = self._open.enter_context(
            connect(self._address(), max_size=None, max_queue=None, ping_interval=None)
        )
        self._numbers = itertools.count(1)
        self.pages: dict[str, Page] = {}

    def page(
        self,
        width: int = 1280,
        height: int = 800,
        *,
        dark: bool = False,
        phone: bool = False,
        beside: Page | None = None,
    ) -> Page:
        """A new page, with a storage of its own, or with that of another one."""
        context = beside.context if beside else self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self.pages[session] = Page(self, session, target, context)
        page.prepare(width, height, dark=dark, phone=phone)
        return page

    def call(self, method: str, session: str = "", **params: Any) -> Any:
        """The result of one call; what happens meanwhile goes to the pages. RuntimeError if it is refused."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        self._socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("id") == number:
                break
            page = self.pages.get(answer.get("sessionId", ""))
            if page is not None:
                page.happened(answer["method"], answer["params"])
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def close(self) -> None:
        """End the browser and remove its profile."""
        with contextlib.suppress(RuntimeError, ConnectionClosed, TimeoutError):
            self.call("Browser.close")
        self._open.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _address(self) -> str:
        """Where the browser listens: it writes that into its profile."""
        file = Path(self._profile, "DevToolsActivePort")
        deadline = time.monotonic() + START_S
        while True:
            lines = file.read_text().splitlines() if file.exists() else []
            if len(lines) == 2:
                return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
            assert time.monotonic() < deadline, "Chromium does not start"
            assert self._process.poll() is None, "Chromium ended"
            time.sleep(0.02)


class Page:
    """One tab."""

    def __init__(self, browser: Chromium, session: str, target: str, context: str) -> None:
        self.context = context
        self._browser = browser
        self._session = session
        self._target = target
        self.complaints: list[str] = []
        self.addresses: list[str] = []
        self.frames: list[str] = []
        self.held: list[str] = []

    def prepare(self, width: int, height: int, *, dark: bool, phone: bool) -> None:
        """Listen to everything, and be of a size."""
        for domain in ("Page", "Runtime", "Log", "Network", "Performance"):
            self._call(f"{domain}.enable")
        metrics = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        self._call("Emulation.setDeviceMetricsOverride", **metrics)
        self._call("Emulation.setTouchEmulationEnabled", enabled=phone)
        self._call("Page.bringToFront")
        self._call("Page.addScriptToEvaluateOnNewDocument", source=SEEN)
        self.dark(dark)

    def dark(self, dark: bool) -> None:
        """Prefer dark or light."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def goto(self, url: str) -> None:
        """Open an address, and wait until it is loaded."""
        self._call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def reload(self) -> None:
        """Load the page anew, and wait until it is loaded. What is read then is nothing of the page before."""
        self.js("window.isBefore = true; location.reload()")
        self.until("document.readyState === 'complete' && !window.isBefore")

    def js(self, expression: str) -> Any:
        """The value of an expression, awaited if it is a promise. AssertionError if it throws."""
        how = {"awaitPromise": True, "returnByValue": True, "allowUnsafeEvalBlockedByCSP": False}
        answer = self._call("Runtime.evaluate", expression=expression, **how)
        thrown = answer.get("exceptionDetails")
        assert thrown is None, thrown.get("exception", {}).get("description", thrown["text"])
        return answer["result"].get("value")

    def until(self, expression: str, within_s: float = 10.0) -> Any:
        """The value of an expression as soon as it is true; AssertionError with the page's text after that time."""
        deadline = time.monotonic() + within_s
        asked = f"(value => value instanceof Node || value)({expression})"
        while not (value := self._now(asked)):
            if time.monotonic() > deadline:
                text = self.js("document.body.innerText")
                raise AssertionError(
                    f"{expression} did not come true; complaints {self.complaints}; page:\n{text[:1500]}"
                )
            time.sleep(0.02)
        return value

    def _now(self, expression: str) -> Any:
        """The value of an expression; None while one page gives way to the next."""
        try:
            return self.js(expression)
        except RuntimeError as error:
            if "navigated" not in str(error):
                raise
            return None

    def text(self, selector: str = "body") -> str:
        """What a person sees of an element: "" without one, and of one that is hidden."""
        return str(self.js(f"seen({json.dumps(selector)})"))

    def count(self, selector: str) -> int:
        """How many elements there are."""
        return int(self.js(f"document.querySelectorAll({json.dumps(selector)}).length"))

    def click(self, selector: str, text: str = "") -> None:
        """Click the middle of a visible element, the first one that contains a text."""
        found = f"[...document.querySelectorAll({json.dumps(selector)})].find((element) =>"
        found += f" element.checkVisibility() && element.innerText.includes({json.dumps(text)}))"
        if text == "":
            found = f"document.querySelector({json.dumps(selector)})"
        self.until(f"Boolean({found})")
        box = f"(({found}).scrollIntoView({{block: 'nearest'}}), ({found}).getBoundingClientRect().toJSON())"
        place = self.js(box)
        at = {"x": place["x"] + place["width"] / 2, "y": place["y"] + place["height"] / 2}
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)

    def wheel(self, selector: str, pixels: int) -> None:
        """Turn the wheel over an element: down for positive numbers."""
        place = self.js(f"document.querySelector({json.dumps(selector)}).getBoundingClientRect().toJSON()")
        at = {"x": place["x"] + place["width"] / 2, "y": place["y"] + place["height"] / 2}
        self._call("Input.dispatchMouseEvent", type="mouseWheel", deltaX=0, deltaY=pixels, **at)

    def drag(self, start: str, end: str) -> None:
        """Press the button at the left of one element, let it go at the right of another: this selects."""
        boxes = [
            self.js(f"document.querySelector({json.dumps(each)}).getBoundingClientRect().toJSON()")
            for each in (start, end)
        ]
        (left, right) = ((boxes[0]["left"] + 1, boxes[0]["top"] + 5), (boxes[1]["right"] - 1, boxes[1]["bottom"] - 5))
        for kind, (x, y) in (("mousePressed", left), ("mouseMoved", right), ("mouseReleased", right)):
            self._call("Input.dispatchMouseEvent", type=kind, button="left", buttons=1, clickCount=1, x=x, y=y)

    def command(self, name: str) -> None:
        """What Ctrl and a key do: `copy`, `paste`, `selectAll`."""
        self._call("Input.dispatchKeyEvent", type="keyDown", key="F24", commands=[name])

    def press(self, key: str, *, code: str = "", shift: bool = False) -> None:
        """Press one key: a character, or one of KEYS; `code` is where it lies on the keyboard."""
        text, number = KEYS.get(key, (key, ord(key.upper()[0])))
        pressed = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": 8 * shift}
        self._call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **pressed)
        self._call("Input.dispatchKeyEvent", type="keyUp", **pressed)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self._call("Input.insertText", text=text)

    def fill(self, selector: str, text: str) -> None:
        """Replace what is in a field."""
        self.until(f"Boolean(document.querySelector({json.dumps(selector)}))")
        self.js(f"document.querySelector({json.dumps(selector)}).focus()")
        self.js(f"document.querySelector({json.dumps(selector)}).select()")
        self.type(text)

    def screenshot(self, path: Path) -> None:
        """Write what is visible as a PNG."""
        picture = self._call("Page.captureScreenshot", format="png", optimizeForSpeed=False)
        path.write_bytes(base64.b64decode(picture["data"]))

    def download_to(self, folder: Path) -> None:
        """Keep what the page downloads."""
        self._call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def hold(self, pattern: str) -> None:
        """Keep back answers to what a pattern with `*` matches, as a slow network would; `held` has them."""
        self._call("Fetch.enable", patterns=[{"urlPattern": pattern, "requestStage": "Response"}])

    def until_held(self, count: int = 1, within_s: float = 10.0) -> None:
        """Wait until so many answers are kept back."""
        self._until(lambda: len(self.held) >= count, f"{count} answers did not come", within_s)

    def until_told(self, text: str, within_s: float = 10.0) -> None:
        """Wait until a frame with this text came over a WebSocket."""
        self._until(lambda: any(text in frame for frame in self.frames), f"No frame with {text}", within_s)

    def let_go(self) -> None:
        """Let through what was kept back, and what comes."""
        for request in self.held:
            self._call("Fetch.continueRequest", requestId=request)
        self.held.clear()
        self._call("Fetch.disable")

    def _until(self, is_so: Callable[[], bool], otherwise: str, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while not is_so():
            assert time.monotonic() < deadline, otherwise
            self.js("1")
            time.sleep(0.02)

    def metrics(self) -> dict[str, float]:
        """Chromium's own figures of the page: JSHeapUsedSize, Nodes, LayoutCount, ..."""
        return {item["name"]: item["value"] for item in self._call("Performance.getMetrics")["metrics"]}

    def collect_garbage(self) -> None:
        """Free what is not used any more."""
        self._call("HeapProfiler.collectGarbage")

    def happened(self, method: str, params: dict[str, Any]) -> None:
        """Keep complaints, and the addresses that were asked for."""
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.addresses.append(params["request"]["url"])
        elif method == "Network.webSocketFrameReceived":
            self.frames.append(params["response"]["payloadData"])
        elif method == "Fetch.requestPaused":
            self.held.append(params["requestId"])
        elif method == "Network.webSocketCreated":
            self.addresses.append(params["url"])

    def close(self) -> None:
        """Close the tab."""
        self._browser.pages.pop(self._session)
        self._browser.call("Target.closeTarget", targetId=self._target)

    def _call(self, method: str, **params: Any) -> Any:
        return self._browser.call(method, self._session, **params)
