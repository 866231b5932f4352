"""The pages over what a real vLLM server says of itself: every chart has something to show."""

import re

import pytest
from client import Ask, name, talk, trace
from deployment import MODEL
from observed import observed

from tests.browser import browsing, draw_all
from tests.patience import eventually

pytestmark = pytest.mark.alone


def test_a_model_and_a_request_that_vllm_serves_are_shown_as_the_api_has_them(deployment, collector):
    asks = [Ask(f"Tell me about number {i}.", trace=trace(), id=name(), tokens=80) for i in range(4)]
    answers = talk(deployment.vllm, *asks)
    observed(collector, *(answer.id for answer in answers))
    address = f"http://{collector.http}"
    heatmap = eventually(lambda: measured(collector))
    with browsing() as browser:
        page, problems = browser.open(f"{address}/model?model={MODEL}&range=15m&scale=value")
        draw_all(page)
        assert page.locator("[data-chart=layers] > canvas").is_visible()
        assert page.locator("[data-chart=heads] > canvas").is_visible()
        page.locator("[data-chart=layers] > canvas").focus()
        page.keyboard.press("End")
        assert (
            page.locator("[data-chart=layers] .reading")
            .inner_text()
            .startswith(f"layer {heatmap['layers'][0]}, ")
        )
        assert "8 of 30 layers" in page.locator("#coverage").inner_text()
        assert page.locator("[data-chart=requests] tbody tr").count() >= len(asks)
        page.goto(f"{address}/request?id={answers[0].id}")
        draw_all(page)
        assert asks[0].trace[0] in page.locator("dl").inner_text()
        found = collector.get("/api/v1/request", id=answers[0].id).json()["requests"][0]
        first = next(one for one in found["segments"][0]["values"] if one["signal"] == "residual.log_rms")
        page.locator(".chart > canvas").focus()
        page.keyboard.press("Home")
        reading = page.locator(".reading").inner_text()
        assert float(re.search(r": (−?[\d.e−]+)", reading).group(1).replace("−", "-")) == pytest.approx(
            first["value"], rel=1e-3, abs=1e-3
        )
        assert problems == []


def measured(collector):
    found = collector.get("/api/v1/heatmap", model=MODEL, signal="residual.log_rms").json()
    return found if found["layers"] else None
