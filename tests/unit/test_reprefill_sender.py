"""Claims on which requests the API process sends again, when, and that nobody notices; against a likeness of vLLM."""

import asyncio
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import pytest

from introspan.capture.requests.frontend import Frontend
from introspan.capture.requests.passport import Passport, read, stamp
from introspan.capture.requests.reprefill_limit import METHOD
from introspan.capture.requests.reprefill_mark import is_genuine, shared_key
from introspan.capture.requests.reprefill_sender import (
    FAILURES_BEFORE_END,
    FOLLOWED_AT_ONCE,
    LONGEST_TOKENS,
    Patience,
    Sender,
    refusal,
)
from introspan.capture.rows import last_of_bursts
from introspan.context import is_chosen, request_hash
from introspan_wire.canary import XARG

KEY = b"0123456789abcdef"
STRIDE = 4
PROMPT = [7, 8, 9]
AT_ONCE = Patience(room_seconds=0.2, look_seconds=0.01, answer_seconds=0.5)


class Parameters(SimpleNamespace):
    def __init__(self, **given):
        kind = SimpleNamespace(name=given.pop("kind", "CUMULATIVE"))
        super().__init__(**{"extra_args": None, "n": 1, "output_kind": kind, **given})


class Engine:
    """As AsyncLLM: says at most so many tokens as it is asked to, in the way that it is asked for them."""

    def __init__(self):
        self.calls, self.unfinished, self.again, self.closed = [], 0, asyncio.Event(), 0
        self.vllm_config = SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=8, policy="fcfs"))
        self.limit, self.questions, self.silent = 1.0, 0, None

    async def collective_rpc(self, method):
        assert method == METHOD
        self.questions += 1
        if self.silent is not None:
            raise self.silent
        return [self.limit]

    def get_num_unfinished_requests(self):
        return self.unfinished

    async def generate(self, prompt, sampling_params, request_id, *, lora_request=None, priority=0):
        self.calls.append(
            SimpleNamespace(
                prompt=prompt, params=sampling_params, id=request_id, adapter=lora_request, priority=priority
            )
        )
        passport = read(sampling_params)
        if passport is not None and passport.again is not None:
            self.again.set()
            if self.broken is not None:
                raise self.broken
            if self.hold is not None:
                await self.hold.wait()
        try:
            tokens = list(range(100, 100 + getattr(sampling_params, "tokens", 1)))
            kind = sampling_params.output_kind.name
            for i, one in enumerate(tokens, start=1):
                await asyncio.sleep(0)
                is_last = i == len(tokens)
                if kind == "FINAL_ONLY" and not is_last:
                    continue
                said = [one] if kind == "DELTA" else tokens[:i]
                reason = getattr(sampling_params, "ends", "length") if is_last else None
                yield SimpleNamespace(
                    prompt_token_ids=prompt["prompt_token_ids"],
                    outputs=[SimpleNamespace(token_ids=said, finish_reason=reason)],
                    finished=is_last,
                )
        finally:
            self.closed += 1

    broken = hold = None


class EngineBefore29(Engine):
    """As AsyncLLM of vLLM 0.20 to 0.28, which does not say itself how many requests it has."""

    get_num_unfinished_requests = property()

    def __init__(self):
        super().__init__()
        self.output_processor = SimpleNamespace(get_num_unfinished_requests=lambda: self.unfinished)


def served(rate=1.0, patience=AT_ONCE, likeness=Engine):
    """An engine whose class is followed, and the sender."""
    engine_class = type("Followed", (likeness,), {"generate": likeness.generate})
    sender = Sender(rate, STRIDE, KEY, lambda: Parameters(kind="FINAL_ONLY"), patience)
    Frontend(b"salt" * 4, sender).follow_engine(engine_class)
    return engine_class(), sender


async def answer(engine, id_, tokens=10, kind="CUMULATIVE", prompt=None, **given):
    params = Parameters(tokens=tokens, kind=kind, **given.pop("params", {}))
    prompt = prompt or {"type": "token", "prompt_token_ids": PROMPT, "cache_salt": "theirs"}
    return [output async for output in engine.generate(prompt, params, id_, **given)]


async def settled(sender):
    if sender._task is not None:  # the tests wait for what nobody else waits for
        await sender._task


def again(engine):
    return [call for call in engine.calls if (passport := read(call.params)) and passport.again is not None]


@pytest.mark.parametrize("kind", ["CUMULATIVE", "DELTA", "FINAL_ONLY"])
@pytest.mark.parametrize("tokens", range(6, 14))
def test_a_request_is_sent_again_up_to_a_token_whose_row_was_measured(kind, tokens):
    async def once():
        engine, sender = served()
        await answer(engine, "r", tokens, kind, lora_request="adapter")
        await settled(sender)
        return engine, sender

    engine, sender = asyncio.run(once())
    (sent,) = again(engine)
    passport = read(sent.params)
    # The last token was drawn, and never an input: of n tokens n − 1 have rows.
    last = last_of_bursts(request_hash("r"), STRIDE, tokens - 1)
    assert sent.prompt["prompt_token_ids"] == [*PROMPT, *range(100, 100 + last + 1)]
    assert passport.again.position == len(PROMPT) + last
    assert passport.number == read(engine.calls[0].params).number != ""
    assert is_genuine(KEY, passport.number, passport.again, passport.token)
    assert (sent.adapter, sent.priority, sender.not_sent) == ("adapter", 0, 0)
    assert sent.prompt["cache_salt"] not in ("", "theirs"), "nothing is read from the prefix cache"
    assert sent.id != "r"


def test_what_the_client_gets_is_what_the_engine_gave_with_and_without_us():
    async def both():
        found = []
        for rate in (0.0, 1.0):
            engine, sender = served(rate)
            answers = await asyncio.gather(*(answer(engine, f"r{i}", 3 + i, "DELTA") for i in range(4)))
            await settled(sender)
            found.append([[one.outputs[0].token_ids for one in outputs] for outputs in answers])
        return found

    without, with_us = asyncio.run(both())
    assert without == with_us


def test_those_are_chosen_that_the_worker_would_measure_first():
    async def many():
        engine, sender = served(rate=0.25)
        for i in range(80):
            await answer(engine, f"r{i}")
            await settled(sender)
        return engine

    engine = asyncio.run(many())
    followed = [call.id for call in engine.calls if (p := read(call.params)).number and p.again is None]
    assert followed == [f"r{i}" for i in range(80) if is_chosen(request_hash(f"r{i}"), 0.25)]
    assert len(again(engine)) == len(followed)
    assert 5 < len(followed) < 40


@pytest.mark.parametrize("limit", [0.125, 0.0])
def test_where_the_worker_measures_less_less_is_sent_again(limit):
    async def many():
        engine, sender = served(rate=0.5)
        engine.limit = limit
        for i in range(80):
            await answer(engine, f"r{i}")
            await settled(sender)
        return engine, sender

    engine, sender = asyncio.run(many())
    allowed = sum(is_chosen(request_hash(f"r{i}"), limit) for i in range(80))
    assert (len(again(engine)), sender.not_sent) == (allowed, 0)
    assert engine.questions > 20 > allowed


def test_a_worker_that_does_not_say_how_much_is_asked_no_more_and_nothing_is_sent(caplog):
    async def many():
        engine, sender = served()
        engine.silent = NotImplementedError("the worker has no such method")
        lengths = []
        for i in range(2 * FAILURES_BEFORE_END):
            lengths.append(len(await answer(engine, f"r{i}")))
            await settled(sender)
        return engine, lengths

    engine, lengths = asyncio.run(many())
    assert (again(engine), engine.questions) == ([], FAILURES_BEFORE_END)
    assert lengths == [10] * 2 * FAILURES_BEFORE_END
    assert "no worker says how many may be" in caplog.text
    assert len(caplog.records) == 2


def test_a_worker_that_was_silent_once_is_asked_again():
    async def silent_at_times():
        engine, sender = served()
        for i in range(4 * FAILURES_BEFORE_END):
            engine.silent = TimeoutError() if i % 2 else None
            await answer(engine, f"r{i}")
            await settled(sender)
        return engine

    assert len(again(asyncio.run(silent_at_times()))) == 2 * FAILURES_BEFORE_END


@pytest.mark.parametrize(
    "given",
    [
        {"tokens": 1},
        {"params": {"n": 2}},
        {"params": {"extra_args": {XARG: "token"}}},
        {"params": {"ends": "abort"}},
        {"prompt": {"type": "embeds", "prompt_token_ids": PROMPT}},
        {"prompt": {"type": "multimodal", "prompt_token_ids": PROMPT}},
    ],
    ids=str,
)
def test_what_could_not_be_compared_is_not_sent_again(given):
    async def once():
        engine, sender = served()
        await answer(engine, "r", **given)
        await settled(sender)
        return engine, sender

    engine, sender = asyncio.run(once())
    assert (again(engine), sender.not_sent) == ([], 0)


def test_one_is_sent_at_a_time_and_the_worker_is_told_how_many_were_not():
    async def several():
        engine, sender = served()
        engine.hold = asyncio.Event()
        await answer(engine, "r0")
        await engine.again.wait()
        for i in range(1, 4):
            await answer(engine, f"r{i}")
        assert (len(again(engine)), sender.not_sent) == (1, 3)
        engine.hold.set()
        await settled(sender)
        await answer(engine, "r4")
        await settled(sender)
        return engine, sender

    engine, sender = asyncio.run(several())
    assert [read(call.params).again.not_sent for call in again(engine)] == [0, 3]
    assert sender.not_sent == 0


@pytest.mark.parametrize("likeness", [Engine, EngineBefore29])
def test_a_busy_engine_is_left_alone(likeness):
    async def busy():
        engine, sender = served(likeness=likeness)
        assert hasattr(engine, "get_num_unfinished_requests") == (likeness is Engine)
        engine.unfinished = 4  # of eight at once
        await answer(engine, "r0")
        await settled(sender)
        assert (again(engine), sender.not_sent) == ([], 1)
        await answer(engine, "r1")
        engine.unfinished = 3
        await settled(sender)
        return engine

    assert len(again(asyncio.run(busy()))) == 1


def test_where_priorities_are_the_engines_order_ours_is_the_last():
    async def once():
        engine, sender = served()
        engine.vllm_config.scheduler_config.policy = "priority"
        await answer(engine, "r")
        await settled(sender)
        return engine

    (sent,) = again(asyncio.run(once()))
    assert sent.priority == 2**31 - 1


@pytest.mark.parametrize("broken", [RuntimeError("the engine is dead"), ValueError("refused")])
def test_an_engine_that_refuses_costs_the_comparison_alone_and_is_logged_once(broken, caplog):
    async def twice():
        engine, sender = served()
        engine.broken = broken
        answers = []
        for i in range(2):
            answers.append(await answer(engine, f"r{i}"))
            await settled(sender)
        return answers, sender

    answers, sender = asyncio.run(twice())
    assert [len(outputs) for outputs in answers] == [10, 10]
    assert (sender.not_sent, len(caplog.records)) == (2, 1)


def test_an_engine_that_never_answers_is_given_up():
    async def once():
        engine, sender = served(patience=Patience(0.2, 0.01, 0.05))
        engine.hold = asyncio.Event()
        await answer(engine, "r")
        await settled(sender)
        return sender

    assert asyncio.run(once()).not_sent == 1


def test_a_client_that_leaves_ends_its_request_in_the_engine_and_nothing_is_sent_again():
    async def leave():
        engine, sender = served()
        running = engine.generate(
            {"type": "token", "prompt_token_ids": PROMPT}, Parameters(tokens=10, kind="DELTA"), "r"
        )
        await anext(running)
        await running.aclose()
        assert engine.closed == 1
        await settled(sender)
        return engine, sender

    engine, sender = asyncio.run(leave())
    assert (len(engine.calls), sender._followed) == (1, 0)


def test_of_answers_beyond_a_number_or_a_length_nothing_is_kept_and_they_are_counted():
    async def flood():
        engine, sender = served()
        params = Parameters(tokens=10, kind="DELTA")
        prompt = {"type": "token", "prompt_token_ids": PROMPT}
        running = [engine.generate(prompt, params, f"r{i}") for i in range(FOLLOWED_AT_ONCE + 3)]
        for one in running:
            await anext(one)
        assert sender._followed == FOLLOWED_AT_ONCE + 3
        for one in running:
            await one.aclose()
        assert (sender._followed, sender.not_sent) == (0, 3)
        long = {"type": "token", "prompt_token_ids": [1] * (LONGEST_TOKENS - 5)}
        await answer(engine, "long", prompt=long)
        await settled(sender)
        return engine, sender

    engine, sender = asyncio.run(flood())
    assert (again(engine), sender.not_sent) == ([], 4)


def test_a_client_cannot_write_the_mark():
    """What it puts into extra_args in our place is overwritten; and it does not know the secret."""

    async def forge():
        engine, _ = served(rate=0.0)
        forged = stamp(Parameters(), Passport("x", number="00")).extra_args
        forged["introspan"] += [5, 0, "0" * 64]
        await answer(engine, "r", params={"extra_args": forged})
        return engine

    passport = read(asyncio.run(forge()).calls[0].params)
    assert (passport.request_id, passport.number, passport.again) == ("r", "", None)


def test_the_secret_is_that_of_the_processes_that_belong_together():
    assert shared_key() == shared_key()
    assert len(shared_key()) == 32
    with get_context("spawn").Pool(1) as pool:
        assert pool.apply(shared_key) == shared_key()


def configuration(**scheduler):
    return SimpleNamespace(
        use_v2_model_runner=False,
        scheduler_config=SimpleNamespace(async_scheduling=False, **scheduler),
        speculative_config=None,
        parallel_config=SimpleNamespace(
            data_parallel_size=1,
            pipeline_parallel_size=1,
            tensor_parallel_size=1,
            prefill_context_parallel_size=1,
            decode_context_parallel_size=1,
        ),
        model_config=SimpleNamespace(runner_type="generate"),
    )


def test_engines_that_could_not_compare_or_would_refuse_others_are_sent_nothing(caplog):
    assert refusal(configuration()) is None
    several = configuration()
    several.parallel_config.data_parallel_size = 2
    limits = " ".join((Path(__file__).parents[2] / "docs" / "limits.md").read_text().split())
    assert refusal(several) in limits
    # Behind an external balancer the engine that answered is the only one that this process has.
    several.parallel_config.data_parallel_external_lb = True
    several.parallel_config.data_parallel_size_local = 1
    assert refusal(several) is None
    several.parallel_config.data_parallel_size_local = 2
    assert refusal(several) in limits
    assert refusal(configuration(max_num_queued_tokens=100)) in limits
    pooling = {"model_config": SimpleNamespace(runner_type="pooling")}
    assert "pooling" in refusal(SimpleNamespace(**vars(configuration()) | pooling))
    engine_class = type("Started", (Engine,), {"__init__": Engine.__init__, "generate": Engine.generate})
    sender = Sender(1.0, STRIDE, KEY, Parameters, AT_ONCE)
    frontend = Frontend(b"salt" * 4, sender)
    frontend.follow_engine(engine_class)
    frontend.follow_starts(engine_class)

    async def once():
        engine = engine_class()  # its configuration lacks what is asked for
        await answer(engine, "r")
        await settled(sender)
        return engine

    assert again(asyncio.run(once())) == []
    assert "requests are not sent again" in caplog.text
