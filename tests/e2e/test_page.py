"""The pages in a real Chromium, over a collector that producers feed through gRPC."""

import re
import threading
import time
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from bench.producer import Producer
from tests.browser import browsing, draw_all
from tests.collector import Collector
from tests.insides import ATTENTION_LAYERS, HEADS, LAYERS, Insides
from tests.patience import eventually

pytestmark = pytest.mark.xdist_group("page")

MODEL = 'acme/poet-7b <b onmouseover="alert(1)">'
TOKEN = "a token of this test"
CONFIG = """
trace_url = "https://traces.example/{{trace_id}}"
{token}
[archive]
flush_seconds = 1
[detect]
tick_seconds = 0.5
provisional_clusters = 150
frozen_clusters = 100000
quiet_seconds = 3600.0
"""


class Fleet:
    """A collector, two replicas of a model that is served all the while, and what is wrong with one of them."""

    def __init__(self, folder, free_port, *, token=False):
        (folder / "token").write_text(TOKEN)
        line = f'http_token_file = "{folder / "token"}"' if token else ""
        self.collector = Collector(folder, free_port, CONFIG.format(token=line))
        self.fault = {}
        self._stopping = threading.Event()

    @contextmanager
    def served(self, *, warm=True):
        """Once there is a reference, where it is to be warm."""
        with ExitStack() as stack:
            stack.enter_context(self.collector)
            replicas = [Insides(MODEL, f"r{number}", seed=number) for number in range(2)]
            producers = [stack.enter_context(Producer(self.collector.grpc, one.origin)) for one in replicas]
            thread = threading.Thread(target=self._serve, args=(replicas, producers))
            thread.start()
            try:
                if warm:
                    eventually(lambda: self.states() == ["provisional"])
                yield self
            finally:
                self._stopping.set()
                thread.join()

    def _serve(self, replicas, producers):
        while not self._stopping.wait(0.3):
            for replica, producer in zip(replicas, producers, strict=True):
                fault = self.fault if replica is replicas[0] else {}
                producer.send(*replica.tables(8, time.time(), segments=2, **fault), status=replica.status())

    def states(self):
        return [one["state"] for one in self.api("references")["references"]]

    @property
    def address(self):
        return f"http://{self.collector.http}"

    def api(self, path, **parameters):
        return self.collector.get(f"/api/v1/{path}", **parameters).json()


@pytest.fixture(scope="module")
def browser():
    with browsing() as found:
        yield found


@pytest.fixture(scope="module")
def fleet(tmp_path_factory, free_port):
    with Fleet(tmp_path_factory.mktemp("fleet"), free_port).served() as found:
        eventually(lambda: found.api("requests", model=MODEL)["requests"])
        yield found


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, free_port):
    with Fleet(tmp_path_factory.mktemp("guarded"), free_port, token=True).served(warm=False) as found:
        yield found


def test_the_fleet_leads_to_a_model_whose_charts_are_drawn_without_a_complaint(browser, fleet):
    page, problems = browser.open(fleet.address)
    page.get_by_role("link", name=MODEL).click()
    draw_all(page)
    assert page.get_by_role("heading", level=1).inner_text() == MODEL
    assert page.locator("main b[onmouseover]").count() == 0
    assert page.locator(".chart canvas[role=img]").count() == 2
    assert page.locator(".lines svg").count() == 6
    assert page.locator("[data-chart=requests] tbody tr").count() == 12
    assert page.locator("[data-chart=requests] a[href^='https://traces.example/']").count() == 12
    assert problems == []


def test_a_heatmap_read_by_keyboard_says_what_the_api_says(browser, fleet):
    page, problems = browser.open(f"{fleet.address}/model?{query(model=MODEL, range='15m', scale='value')}")
    draw_all(page)
    layers, heads = page.locator("[data-chart=layers]"), page.locator("[data-chart=heads]")
    layers.locator("> canvas").focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowUp")
    reading = layers.locator(".reading")
    if "not measured" in reading.inner_text():  # a minute that has just begun
        page.keyboard.press("ArrowLeft")
    assert reading.inner_text().startswith(f"layer {LAYERS[1]}, ")
    value = float(re.search(r"mean (\S+)", reading.inner_text()).group(1).replace("−", "-"))
    found = fleet.api("heatmap", model=MODEL, signal="residual.log_rms", **{"from": str(time.time() - 900)})
    assert found["layers"] == list(LAYERS)
    assert min(abs(value - one) for one in found["mean"][1] if one is not None) < 0.02
    heads.locator("> canvas").focus()
    page.keyboard.press("Home")
    assert heads.locator(".reading").inner_text().startswith(f"layer {ATTENTION_LAYERS[0]}, head 0: ")
    page.keyboard.press("End")
    said = heads.locator(".reading").inner_text()
    assert said.startswith(f"layer {ATTENTION_LAYERS[0]}, head {HEADS - 1}: ")
    expected = fleet.api("heads", model=MODEL)["mean"][0][-1]
    assert float(re.search(r": (\S+) nats", said).group(1)) == pytest.approx(expected, abs=0.03)
    assert problems == []


def test_lines_and_drift_are_read_by_keyboard_and_keep_their_place_when_they_are_drawn_anew(browser, fleet):
    eventually(
        lambda: [len(of["points"]) > 1 for of in fleet.api("drift", model=MODEL)["kinds"]] == [True, True]
    )
    page, problems = browser.open(f"{fleet.address}/model?{query(model=MODEL, range='15m')}")
    drift = page.locator("[data-chart=drift]")
    draw_all(page)
    assert drift.locator("path.line").count() == drift.locator("path.dashed").count() == 2
    drift.locator("svg").focus()
    page.keyboard.press("Home")
    first = drift.locator(".reading").inner_text()
    kinds = fleet.api("drift", model=MODEL, **{"from": str(time.time() - 900)})["kinds"]
    at, distance, threshold = next(one["points"][0] for one in kinds if one["kind"] == "prompt")
    assert first.startswith(time.strftime("%H:%M", time.gmtime(at)))
    said = re.search(r"prompt (\S+)\s+┅ of at most (\S+)", first)
    assert [float(one) for one in said.groups()] == pytest.approx([distance, threshold], rel=1e-3)
    page.keyboard.press("ArrowRight")
    second = drift.locator(".reading").inner_text()
    assert second != first
    drift.locator("svg").evaluate("svg => svg.classList.add('old')")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    drift.locator("svg:not(.old)").wait_for()
    assert drift.locator(".reading").inner_text() == second
    assert page.evaluate("document.activeElement.closest('[data-chart]').dataset.chart") == "drift"
    page.keyboard.press("Escape")
    assert drift.locator(".reading").inner_text().startswith("last: ")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('[data-chart]').dataset.chart") == "lines"
    page.keyboard.press("End")
    assert "r0" in page.evaluate("document.activeElement.closest('[data-chart]').innerText")
    assert problems == []


def test_what_is_chosen_is_in_the_address_and_an_address_chooses(browser, fleet):
    page, problems = browser.open(f"{fleet.address}/model?{query(model=MODEL)}")
    page.locator("select[name=signal]").select_option("residual.turn")
    page.wait_for_url("**signal=residual.turn**")
    page.locator("select[name=range]").select_option("6h")
    page.wait_for_url("**range=6h**")
    copied, more = browser.open(page.url)
    assert copied.locator("select[name=signal]").input_value() == "residual.turn"
    assert copied.locator("select[name=range]").input_value() == "6h"
    assert copied.get_by_role("heading", name="residual.turn by layer over time").is_visible()
    assert problems + more == []


def test_a_request_is_found_by_its_id_and_shown_layer_by_layer(browser, fleet):
    page, problems = browser.open(fleet.address)
    one = fleet.api("requests", model=MODEL)["requests"][-1]
    page.keyboard.press("/")
    page.keyboard.type(one["request_id"])
    page.keyboard.press("Enter")
    page.wait_for_url("**/request?id=**")
    draw_all(page)
    to_trace = page.get_by_role("link", name=one["trace_id"])
    assert to_trace.get_attribute("href") == f"https://traces.example/{one['trace_id']}"
    found = fleet.api("request", id=one["request_id"])["requests"][0]
    segment = found["segments"][0]
    value = next(of for of in segment["values"] if (of["signal"], of["layer"]) == ("residual.log_rms", 4))
    page.locator(".chart > canvas").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowUp")
    reading = page.locator(".reading").inner_text()
    assert f"layer 4, prompt tokens {segment['token_start']}" in reading
    assert float(re.search(r": (\S+?),", reading).group(1)) == pytest.approx(value["value"], rel=1e-3)
    assert f"{len(found['segments'])} segments" in page.locator("dl").inner_text()
    assert problems == []


def test_an_address_that_leads_nowhere_says_what_to_do(browser, fleet):
    page, problems = browser.open(f"{fleet.address}/request?id=chatcmpl-none")
    assert "nothing measured of it is in the archive" in page.locator("main").inner_text()
    assert [one for one in problems if "404" not in one] == []


def test_a_new_alarm_appears_without_a_reload_and_is_acknowledged_by_who_looks(browser, fleet):
    page, problems = browser.open(fleet.address)
    assert page.get_by_text("no open incident").first.is_visible()
    page.evaluate("window.loadedOnce = true")
    fleet.fault = {"shift": 6.0}
    page.get_by_role("link", name=re.compile("open incident")).wait_for(timeout=40_000)
    assert page.evaluate("window.loadedOnce")
    assert page.title().startswith("(1) ")
    page.get_by_role("link", name=re.compile("open incident")).click()
    page.locator("article.incident h3 a").first.click()
    alarm = next(one for one in fleet.api("alarms")["alarms"] if one["state"] == "open")
    assert alarm["guarantee"] in page.locator("main").inner_text()
    page.get_by_label("Your name").fill("Ann")
    page.get_by_label("Comment").fill("<i>rolled back</i>")
    page.get_by_role("button", name="Acknowledge").click()
    page.get_by_text("by Ann: <i>rolled back</i>").wait_for()
    assert fleet.api(f"alarms/{alarm['id']}")["acknowledgement"]["by"] == "Ann"
    assert "acknowledged" in page.locator("#states").inner_text()
    page.get_by_role("link", name=alarm["exemplars"][0]["request_id"]).click()
    draw_all(page)
    assert "It is an example of" in page.locator("main").inner_text()
    page.goto(f"{fleet.address}/model?{query(model=MODEL, range='15m')}")
    draw_all(page)
    assert "an incident opened" in page.locator("[data-chart=layers] .legend").inner_text()
    assert page.locator(".lines .mark").count() > 0
    assert problems == []


def test_without_the_token_nothing_is_acknowledged_and_with_it_it_is(browser, guarded):
    guarded.fault = {"nonfinite": 3}  # for which nobody waits until there is a reference
    (alarm,) = eventually(lambda: guarded.api("alarms")["alarms"])
    page, problems = browser.open(f"{guarded.address}/incident?{query(id=alarm['id'])}")
    page.get_by_label("Your name").fill("Ann")
    page.get_by_label("API token").fill("another")
    page.get_by_role("button", name="Acknowledge").click()
    page.locator("output.failed").wait_for()
    assert "http_token_file" in page.locator("output").inner_text()
    assert guarded.api(f"alarms/{alarm['id']}")["state"] == "open"
    assert [one for one in problems if "401" not in one] == []
    page.get_by_label("API token").fill(TOKEN)
    page.get_by_role("button", name="Acknowledge").click()
    page.get_by_text("Acknowledged.").wait_for()
    assert guarded.api(f"alarms/{alarm['id']}")["state"] == "acknowledged"


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (3840, "dark")])
def test_every_view_fits_from_a_phone_to_a_wall(browser, fleet, width, scheme):
    request = fleet.api("requests", model=MODEL)["requests"][-1]["request_id"]
    alarms = [f"/incident?{query(id=one['id'])}" for one in fleet.api("alarms")["alarms"]]
    paths = ("/", f"/model?{query(model=MODEL)}", "/incidents", "/canary", "/request")
    for path in (*paths, f"/request?{query(id=request)}", *alarms):
        page, problems = browser.open(fleet.address + path, width=width, scheme=scheme)
        draw_all(page)
        overflow = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert overflow <= 0, path
        assert problems == [], path
        page.context.close()


def test_a_page_whose_collector_is_gone_says_that_it_is_old(browser, tmp_path, free_port):
    with Collector(tmp_path, free_port) as collector:
        page, _ = browser.open(f"http://{collector.http}")
        page.clock.install()
        page.reload()
    assert page.locator("#lost").is_hidden()
    page.clock.run_for(30_000)
    page.locator("#lost").wait_for()
    assert "what is shown is old" in page.locator("#lost").inner_text()


def query(**parameters):
    return str(httpx.QueryParams(parameters))
