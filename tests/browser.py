"""A headless Chromium, driven through a pipe by the DevTools protocol: nothing but Chromium itself has to be installed.

with Browser(tmp_path) as browser:
    browser.open("http://localhost:6006")
    browser.wait_for("document.title")            # until the expression is true; returns its value
    browser.screenshot(tmp_path / "page.png")
    assert browser.errors == []                   # what the console shows in red
"""

import base64
import json
import os
import select
import shutil
import subprocess
import time

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--hide-scrollbars",
    "--remote-debugging-pipe", "--disable-dev-shm-usage",
]  # fmt: skip


class Browser:
    """One page of a Chromium that ends with the block.

    Args:
        folder: for the profile.
        width, height: of the page, in pixels.
        timeout: seconds to wait for anything.
    """

    def __init__(self, folder, width=1600, height=1000, timeout=60):
        self.timeout = timeout
        self.errors = []
        self._number, self._buffer = 0, b""
        ours_read, theirs_write = os.pipe()
        theirs_read, ours_write = os.pipe()
        flags = [*_FLAGS, f"--user-data-dir={folder}/chromium", f"--window-size={width},{height}"]
        # Chromium reads from its descriptor 3 and writes to 4.
        shell = ["bash", "-c", f'exec "$@" 3<&{theirs_read} 4>&{theirs_write}', "bash", CHROMIUM, *flags, "about:blank"]
        self._process = subprocess.Popen(
            shell, pass_fds=(theirs_read, theirs_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(theirs_read)
        os.close(theirs_write)
        self._read, self._write = ours_read, ours_write
        self._session = None
        pages = [one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        attached = self.call("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._session = None
        try:
            self.call("Browser.close")
        finally:
            os.close(self._write)
            os.close(self._read)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def call(self, method, **parameters):
        """Call a method of the DevTools protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + self.timeout
        while True:
            answer = self._next(deadline)
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._note(answer)

    def open(self, url):
        """Open a page, which may not have loaded all when this returns."""
        self.call("Page.navigate", url=url)

    def evaluate(self, expression):
        """Return the value of a JavaScript expression; promises are waited for."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]["exception"].get("description")
        return result["result"].get("value")

    def wait_for(self, expression):
        """Return the value of an expression once it is neither false nor empty, nor raises an exception."""
        deadline = time.monotonic() + self.timeout
        guarded = f"(() => {{ try {{ return ({expression}) }} catch (error) {{ return null }} }})()"
        while not (value := self.evaluate(guarded)):
            assert time.monotonic() < deadline, f"not within {self.timeout} s: {expression}\n{self.text()[:3000]}"
            time.sleep(0.1)
        return value

    def text(self):
        """Return the texts of the page, those of its shadow roots included."""
        return self.evaluate(_TEXT)

    def wait_for_texts(self, *texts):
        """Wait until all of these texts are on the page, and return all of the page."""
        deadline = time.monotonic() + self.timeout
        while missing := [text for text in texts if text not in (shown := self.text())]:
            assert time.monotonic() < deadline, f"not within {self.timeout} s: {missing} in\n{shown}"
            time.sleep(0.2)
        return shown

    def screenshot(self, path):
        """Write what the page looks like as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def _next(self, deadline):
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"Chromium does not answer within {self.timeout} s"
            part = os.read(self._read, 1 << 20)
            assert part, "Chromium has ended"
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)

    def _note(self, event):
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(parameters["exceptionDetails"].get("exception", {}).get("description")))
        elif event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")


_TEXT = """(() => {
  const found = [];
  const visit = (node) => {
    if (node.nodeType === Node.TEXT_NODE && node.data.trim()) found.push(node.data.trim());
    if (['STYLE', 'SCRIPT', 'TEMPLATE'].includes(node.nodeName)) return;
    if (node.shadowRoot) visit(node.shadowRoot);
    for (const child of node.childNodes) visit(child);
  };
  if (document.body) visit(document.body);
  return found.join('\\n');
})()"""
