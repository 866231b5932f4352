"""A folder in, pictures of the pages over made-up requests for the documents out: python -m tests.page_pictures docs"""

import argparse
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import httpx

from bench.producer import Producer
from introspan_collector.testing import free_address
from tests.browser import browsing, draw_all
from tests.collector import Collector
from tests.insides import Insides

CONFIG = """
[archive]
flush_seconds = 2
[detect]
tick_seconds = 0.5
provisional_clusters = 150
frozen_clusters = 400
frozen_hours = 0.0
quiet_seconds = 3600.0
"""
MODEL = "acme/chat-8b"
SERVED = (
    (MODEL, "chat-7d9f-a", 5),
    (MODEL, "chat-7d9f-b", 5),
    ("acme/code-14b", "code-55c-0", 5),
    ("acme/edge", "edge-0", 1),
)
FAULTY = "chat-7d9f-a"
FAULTY_SECONDS = 200.0


def serve(address, healthy_seconds, stopping):
    """Sends requests; after a while the later layers of one replica are larger than they were."""
    began = time.monotonic()
    with ExitStack() as stack:
        replicas = [Insides(model, replica, seed) for seed, (model, replica, _) in enumerate(SERVED)]
        producers = [stack.enter_context(Producer(address, one.origin)) for one in replicas]
        while not stopping.wait(0.5):
            is_over = time.monotonic() - began > healthy_seconds
            for one, producer, (_, name, count) in zip(replicas, producers, SERVED, strict=True):
                shift = 3.0 if is_over and name == FAULTY else 0.0
                producer.send(*one.tables(count, time.time(), shift=shift, segments=3), status=one.status())


def take(collector, folder):
    """The pictures."""
    alarm = collector.get("/api/v1/alarms").json()["alarms"][0]
    opened = alarm["opened_unix_seconds"]
    request = {"id": alarm["exemplars"][0]["request_id"], "from": opened - 3600, "to": time.time() + 60}
    views = {
        "page-fleet": ("/", {}, 430, "light"),
        "page-model": ("/model", {"model": MODEL, "range": "15m"}, 1010, "light"),
        "page-incident": ("/incident", {"id": alarm["id"]}, 1000, "light"),
        "page-request": ("/request", request, 1060, "dark"),
    }
    with browsing() as browser:
        for name, (path, parameters, height, scheme) in views.items():
            address = f"http://{collector.http}{path}?{httpx.QueryParams(parameters)}"
            page, problems = browser.open(address, width=1280, height=height, scheme=scheme)
            draw_all(page)
            page.evaluate("scrollTo(0, 0)")
            if name == "page-model":
                box = page.locator("[data-chart=layers] > canvas").bounding_box()
                page.mouse.move(box["x"] + 0.95 * box["width"], box["y"] + 52)
            page.screenshot(path=folder / f"{name}.png")
            assert problems == [], problems


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--healthy-seconds", type=float, default=600.0)
    asked = parser.parse_args()
    stopping = threading.Event()

    def free_port():
        return int(free_address().rpartition(":")[2])

    with tempfile.TemporaryDirectory() as folder, Collector(Path(folder), free_port, CONFIG) as collector:
        thread = threading.Thread(target=serve, args=(collector.grpc, asked.healthy_seconds, stopping))
        thread.start()
        try:
            time.sleep(asked.healthy_seconds + FAULTY_SECONDS)
            take(collector, asked.folder)
        finally:
            stopping.set()
            thread.join()


if __name__ == "__main__":
    main()
