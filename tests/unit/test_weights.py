"""Claims on how changes of a model's weights are followed, against small likenesses of vLLM's worker and runner."""

from types import SimpleNamespace

import pytest
import torch

from introspan.capture.health import Health
from introspan.capture.model.weights import Weights


class Model:
    def load_weights(self, weights):
        return set(weights)


class Runner:
    """As GPUModelRunner: weights from an iterator, else from files."""

    def __init__(self):
        self.model = Model()

    def get_model(self):
        return self.model

    def reload_weights(self, weights_iterator=None, weights_path=None):
        if weights_path == "absent":
            raise FileNotFoundError(weights_path)
        self.model.load_weights(weights_iterator or [])
        return "reloaded"


class Worker:
    """As gpu_worker.Worker."""

    def start_weight_update(self):
        return "started"

    def update_weights(self, update_info):
        return update_info

    def finish_weight_update(self):
        return "finished"

    def sleep(self, level=1):
        return level

    def wake_up(self, tags=None):
        return tags

    def discard(self, tags):
        return tags


class Served:
    """A worker whose weights are followed, and what was told of them."""

    def __init__(self, worker=Worker, *, fails=False):
        self.worker, self.runner, self.health = worker(), Runner(), Health()
        self.told = []
        self.fails = fails
        weights = Weights(self.health, lambda: self.told.append("leave"), self.arrive)
        weights.follow(self.worker, self.runner)
        self.identify = weights.measured(lambda new: new)

    def arrive(self, source):
        assert torch.is_inference_mode_enabled()
        if self.fails:
            raise ValueError("no fingerprint")
        self.told.append(source.value)

    @property
    def measures(self):
        return self.identify(SimpleNamespace()) is not None


def test_a_reload_from_files_and_one_from_memory_are_told_apart():
    served = Served()
    assert served.runner.reload_weights() == "reloaded"
    assert served.runner.reload_weights(weights_path="other") == "reloaded"
    assert served.runner.reload_weights(iter([1])) == "reloaded"
    assert served.runner.reload_weights(weights_iterator=iter([1])) == "reloaded"
    assert served.told == ["leave", "files"] * 2 + ["leave", "memory"] * 2
    assert served.measures


def test_while_an_update_is_under_way_nothing_is_measured_and_it_is_counted():
    served = Served()
    assert served.worker.start_weight_update() == "started"
    assert not served.measures
    assert served.worker.update_weights({"path": 1}) == {"path": 1}
    assert served.worker.update_weights([2]) == [2]
    assert not served.measures
    assert served.health.dropped_requests["weights_changing"] == 2
    assert served.worker.finish_weight_update() == "finished"
    assert served.measures
    assert served.told == ["leave", "memory"]


def test_weights_that_somebody_writes_into_the_model_are_another_model_at_the_next_request():
    served = Served()
    load = served.runner.model.load_weights
    assert [load([name]) for name in "abc"] == [{"a"}, {"b"}, {"c"}]
    assert served.told == ["leave"]
    assert served.measures
    assert served.measures
    assert served.told == ["leave", "unannounced"]
    load(["a"])
    assert served.measures
    assert served.told == ["leave", "unannounced"] * 2
    assert not served.health.dropped_requests


def test_a_reload_after_an_unannounced_change_is_announced_again():
    served = Served()
    served.runner.model.load_weights(["a"])
    served.runner.reload_weights()
    assert served.measures
    served.runner.model.load_weights(["a"])
    served.worker.start_weight_update()
    assert not served.measures
    served.worker.finish_weight_update()
    assert served.measures
    assert served.told == ["leave", "files", "leave", "memory"]


def test_a_sleep_that_keeps_the_weights_changes_nothing():
    served = Served()
    assert (served.worker.sleep(), served.worker.sleep(level=1), served.worker.wake_up()) == (1, 1, None)
    assert served.told == []
    assert served.measures


@pytest.mark.parametrize(
    "let_go", [lambda w: w.sleep(2), lambda w: w.sleep(level=2), lambda w: w.discard(("weights",))]
)
def test_weights_that_were_let_go_are_another_model_after_waking_up_and_after_a_reload(let_go):
    served = Served()
    let_go(served.worker)
    assert not served.measures
    served.worker.wake_up(tags=["kv_cache"])
    assert not served.measures
    served.worker.wake_up(["weights"])
    served.runner.reload_weights()
    assert served.measures
    assert served.told == ["leave", "memory", "leave", "files"]


def test_discarding_the_cache_alone_changes_nothing():
    served = Served()
    served.worker.discard(("kv_cache",))
    assert served.told == []


def test_a_reload_that_fails_raises_in_the_host_and_nothing_is_measured_until_one_succeeds():
    served = Served()
    with pytest.raises(FileNotFoundError):
        served.runner.reload_weights(weights_path="absent")
    assert not served.measures
    served.runner.reload_weights()
    assert served.measures


def test_a_model_that_cannot_be_named_is_not_measured_and_the_reason_is_told():
    served = Served(fails=True)
    assert served.runner.reload_weights() == "reloaded"
    assert not served.measures
    assert served.health.disabled["capture"].reason == "weights_unknown"
    assert "no fingerprint" in served.health.disabled["capture"].detail


def test_a_worker_that_lacks_some_of_the_methods_is_followed_by_the_others():
    served = Served(worker=SimpleNamespace)
    served.runner.reload_weights()
    assert served.told == ["leave", "files"]
