"""The name of a request's adapter is on what is measured of it, however the V2 runner comes to its requests."""

from dataclasses import dataclass, field

import pytest
from vllm import SamplingParams
from vllm.config.lora import LoRAConfig
from vllm.lora.request import LoRARequest
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.request import Request as EngineRequest

from introspan.admission import Admission
from introspan.capture.requests.identity import Identity
from introspan.observation import Request
from tests.device_double import END, device
from tests.followed import FEW_BLOCKS, MANY_BLOCKS, Watched, check, watch
from tests.v2_engine import BLOCK_TOKENS, Plan, configuration

ADAPTERS = {"r0": "", "r1": "law", "r2": "medicine", "r3": "law"}


@pytest.fixture(scope="module")
def configured(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, device(patch):
        config = configuration(tmp_path_factory.mktemp("model"), patch)
        config.lora_config = LoRAConfig(max_loras=2)
        config.cache_config.enable_prefix_caching = True
        init_none_hash(sha256)
        yield lambda: config


@dataclass
class Served:
    """A followed engine that serves adapters; who its requests were taken for, by key."""

    watched: Watched
    known: dict[str, list[Request]] = field(default_factory=dict)

    def add(self, key: str, plan: Plan, seed: int) -> None:
        """A request as a client with an adapter sends it."""
        engine, adapter = self.watched.engine, ADAPTERS[key]
        params = SamplingParams(temperature=0.0, max_tokens=plan.most, ignore_eos=True)
        params.update_from_generation_config({}, eos_token_id=END)
        number = 1 + sorted(ADAPTERS.values()).index(adapter)
        lora = LoRARequest(adapter, number, lora_path=f"/adapters/{adapter}") if adapter else None
        hasher = get_request_block_hasher(BLOCK_TOKENS, sha256)
        engine.runner.seeds[key] = seed
        engine.delivered[key] = []
        request = EngineRequest(key, [4] * plan.prompt, params, None, lora_request=lora, block_hasher=hasher)
        engine.scheduler.add_request(request)

    def finish(self) -> None:
        while not self.watched.engine.is_idle:
            self.watched.engine.step()


def _served(configured, blocks: int) -> Served:
    identity, known = Identity(b"salt", Admission(1.0, 10**9)), dict[str, list[Request]]()

    def identify(new) -> Request | None:
        request = identity.of(new)
        if request is not None:
            known.setdefault(new.req_id, []).append(request)
        return request

    return Served(watch(configured, blocks=blocks, identify=identify), known)


def _names(served: Served) -> dict[str, set[str]]:
    """Under which adapters rows of each request were handed on."""
    return {key: set(names) for key, names in served.watched.adapters.items()}


def test_the_adapter_of_each_request_is_on_its_rows(configured):
    served, plans = _served(configured, MANY_BLOCKS), {key: Plan(9, 6, ends=False) for key in ADAPTERS}
    for seed, (key, plan) in enumerate(plans.items()):
        served.add(key, plan, seed)
    served.finish()
    check(served.watched, plans, depth=2)
    assert _names(served) == {key: {name} for key, name in ADAPTERS.items()}


def test_a_prompt_from_the_cache_of_its_adapter_keeps_the_name_and_another_adapters_cache_is_not_taken(
    configured,
):
    served, plan = _served(configured, MANY_BLOCKS), Plan(17, 4, ends=False)
    for seed, key in enumerate(("r1", "r3", "r2")):
        served.add(key, plan, seed)
        served.finish()
    cached = {key: request.cached_tokens for key, (request,) in served.known.items()}
    assert cached == {"r1": 0, "r3": 16, "r2": 0}, "the second came from the cache, and no other"
    assert _names(served) == {key: {ADAPTERS[key]} for key in ("r1", "r2", "r3")}
    assert served.watched.positions("r3") == [16, 17, 18, 19]


def test_a_request_that_comes_again_after_it_was_preempted_has_the_name_that_it_began_with(configured):
    served, plans = _served(configured, FEW_BLOCKS), {key: Plan(20, 60, ends=False) for key in ADAPTERS}
    for seed, (key, plan) in enumerate(plans.items()):
        served.add(key, plan, seed)
    served.finish()
    assert served.watched.engine.preemptions > 0, "the cache was large enough for all: nothing was tested"
    check(served.watched, plans, depth=2)
    assert _names(served) == {key: {name} for key, name in ADAPTERS.items()}
