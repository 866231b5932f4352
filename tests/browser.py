"""A real Chromium in, pages that note everything that goes wrong in them out."""

from contextlib import contextmanager

from playwright.sync_api import sync_playwright

CHROMIUM = "/usr/bin/chromium"
_OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")


@contextmanager
def browsing():
    """A function that opens an address: a Playwright page whose `problems` must stay empty."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_OPTIONS))
        try:
            yield Browser(browser)
        finally:
            browser.close()


class Browser:
    """Opens pages, each of a visitor of its own."""

    def __init__(self, browser):
        self._browser = browser

    def open(self, address, *, width=1360, height=900, scheme="light"):
        """A page, and the list of what its console, its scripts and its requests complain of."""
        context = self._browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
        )
        page, problems = context.new_page(), []
        page.set_default_timeout(20_000)
        page.on(
            "console",
            lambda said: problems.append(said.text) if said.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: problems.append(str(error)))
        host = address.split("/")[2]
        page.on(
            "request", lambda asked: None if asked.url.split("/")[2] == host else problems.append(asked.url)
        )
        page.goto(address)
        return page, problems


def draw_all(page):
    """Scrolls to every chart and waits until it is drawn."""
    for chart in page.locator("[data-chart]").all():
        chart.scroll_into_view_if_needed()
        page.wait_for_function("chart => chart.dataset.state === 'drawn'", arg=chart.element_handle())
