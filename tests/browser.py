"""A headless Chromium for tests of pages: offline, and strict about what a page says and asks for."""

from contextlib import contextmanager
from shutil import which

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser():
    """The browser of the machine; tests skip where there is none, or nothing that drives it."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed, which drives a browser")
    executable = next(filter(None, map(which, _NAMES)), None)
    if executable is None:
        pytest.skip(f"no browser is installed: none of {', '.join(_NAMES)} is there")
    with driver.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=["--headless", *_QUIET])
        yield chromium
        chromium.close()


@contextmanager
def opened(browser, path, width=1200, height=900, **options):
    """Open a file; what it asks the network for, logs or throws is a failure."""
    context = browser.new_context(viewport={"width": width, "height": height}, offline=True, **options)
    page = context.new_page()
    page.set_default_timeout(5000)
    wrong = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url))
    address = path.as_uri()
    page.goto(address)
    yield page
    found = [text for text in wrong if text != address and not text.startswith("data:")]
    context.close()
    assert found == []


CONTRASTS = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = (colour) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = colour.map((value) => linear(value / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const [r, g, b, alpha] = numbers(getComputedStyle(at).backgroundColor);
      if (alpha !== 0) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || !element.getClientRects().length) continue;
    found.push([element, walker.currentNode.data]);
  }
  for (const input of document.querySelectorAll("input:not([type=range])")) found.push([input, input.value]);
  return found.map(([element, text]) => {
    const style = getComputedStyle(element);
    const ink = numbers(element instanceof SVGElement ? style.fill : style.color).slice(0, 3);
    const [dark, light] = [luminance(ink), luminance(ground(element))].sort((a, b) => a - b);
    return [text.trim().slice(0, 40), (light + 0.05) / (dark + 0.05)];
  });
}"""
"""Gives each visible text of a page and its contrast with the ground behind it, as WCAG defines it."""
