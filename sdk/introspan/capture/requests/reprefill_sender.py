"""Answers of the API server in, the same out; of some of their requests, one more request to the engine each.

Such a request is the first one's prompt and the tokens that were generated, up to one whose state was measured: what
was decoded is prefilled, without the prefix cache, and the worker compares the two. It waits until the engine has
room, one at a time; what would have to wait longer is not sent, and counted. The worker is asked first: where the
collector has it measure less, less is sent. Tokens are kept while their answer is generated and until it was sent
again, in this process alone, which has them anyway.
"""

import asyncio
import logging
import secrets
from array import array
from collections.abc import AsyncGenerator, Callable
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any

from introspan.capture.requests.passport import Passport, stamp
from introspan.capture.requests.reprefill_limit import allows
from introspan.capture.requests.reprefill_mark import token
from introspan.capture.rows import last_of_bursts
from introspan.context import is_chosen, request_hash
from introspan.observation import Again
from introspan_wire.canary import XARG

_log = logging.getLogger("introspan")

FOLLOWED_AT_ONCE = 64
"""Answers whose tokens are kept at once; of others that were chosen nothing is kept, and they are counted."""

LONGEST_TOKENS = 16_384
"""Prompt and answer together; what is longer would hold up the engine for others."""

FAILURES_BEFORE_END = 3
"""A worker that so often in a row did not say how much may be sent is asked no more, and nothing is sent."""

_ENDS = ("stop", "length")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a request waits for room in the engine, how often it looks, and how long it may take."""

    room_seconds: float = 10.0
    look_seconds: float = 0.1
    answer_seconds: float = 60.0


# Any throughout: engine clients, prompts, parameters and outputs of vLLM.
@dataclass(slots=True, eq=False)
class Followed:
    """A request that was chosen, and what is known of it. generate: the engine's own, as it was before we came."""

    number: str
    hash: int
    client: Any
    generate: Callable[..., Any]
    adapter: Any
    is_delta: bool
    prompt: list[int] = field(default_factory=list)
    tokens: "array[int]" = field(default_factory=lambda: array("q"))
    is_complete: bool = False
    is_given_up: bool = False

    def take(self, output: Any) -> None:
        """Notes what was generated."""
        one = output.outputs[0]
        if self.is_given_up or not (self.is_delta or output.finished):
            return
        self.tokens.extend(one.token_ids)
        if len(self.tokens) + len(output.prompt_token_ids) > LONGEST_TOKENS:
            self.give_up()
        elif output.finished:
            self.prompt = output.prompt_token_ids
            self.is_complete = one.finish_reason in _ENDS

    def give_up(self) -> None:
        """Keeps nothing of it any more."""
        self.is_given_up, self.tokens = True, array("q")


class Sender:
    """Sends a share of one API process's requests again. parameters: what an engine request for one token takes."""

    def __init__(
        self,
        rate: float,
        token_stride: int,
        key: bytes,
        parameters: Callable[[], Any],
        patience: Patience | None = None,
    ) -> None:
        self._rate = rate
        self._token_stride = token_stride
        self._key = key
        self._parameters = parameters
        self._patience = patience or Patience()
        self._followed = 0
        self._task: asyncio.Task[None] | None = None
        self._errors = 0
        self._unanswered = 0
        self.not_sent = 0
        """Requests that were to be sent again and were not, of which no worker was told yet."""

    def choose(
        self,
        client: Any,
        generate: Callable[..., Any],
        prompt: Any,
        params: Any,
        request_id: str,
        adapter: Any,
    ) -> Followed | None:
        """The request, if it is one to follow: of one answer, to tokens alone, and no canary."""
        drawn = request_hash(request_id)
        if self._unanswered >= FAILURES_BEFORE_END:
            return None
        if not is_chosen(drawn, self._rate) or params.n != 1 or XARG in (params.extra_args or {}):
            return None
        if not isinstance(prompt, dict) or prompt.get("type") != "token":
            return None
        is_delta = params.output_kind.name == "DELTA"
        return Followed(secrets.token_hex(8), drawn, client, generate, adapter, is_delta)

    async def passed_on(self, answer: Any, followed: Followed) -> AsyncGenerator[Any, None]:
        """What is generated, as it comes; the request is sent again when that has ended as it should."""
        if self._followed >= FOLLOWED_AT_ONCE:
            followed.give_up()
        self._followed += 1
        try:
            async for output in answer:
                self._guarded(followed.take, output)
                yield output
        finally:
            self._followed -= 1
            await answer.aclose()
            self._guarded(self._ended, followed)

    def _ended(self, followed: Followed) -> None:
        if followed.is_given_up:
            self.not_sent += 1
        if not followed.is_complete:
            return
        # The last token was drawn, but never an input.
        last = last_of_bursts(followed.hash, self._token_stride, len(followed.tokens) - 1)
        if last is None:
            return
        if self._task is not None and not self._task.done():
            self.not_sent += 1
            return
        # A context of its own: what is sent belongs to no span of the caller's.
        self._task = asyncio.get_running_loop().create_task(self._send(followed, last), context=Context())

    async def _send(self, followed: Followed, last: int) -> None:
        """Sends a request again, up to this one of its decoded tokens."""
        told = self.not_sent
        try:
            if not await self._is_allowed(followed):
                return
            if not await self._has_room(followed.client):
                self.not_sent += 1
                return
            prompt = [*followed.prompt, *followed.tokens[: last + 1]]
            async with asyncio.timeout(self._patience.answer_seconds):
                async for _ in self._generated(followed, prompt, told):
                    pass
            self.not_sent -= told
        except Exception as error:  # noqa: BLE001 - the edge of the host: the engine may be gone
            self.not_sent += 1
            self._failed(error)

    def _generated(self, followed: Followed, prompt: list[int], told: int) -> Any:
        again = Again(len(prompt) - 1, told)
        id_ = f"introspan-again-{followed.number}"
        proof = token(self._key, followed.number, again)
        params = stamp(self._parameters(), Passport(id_, number=followed.number, again=again, token=proof))
        # Of a salt that nobody else has nothing is in the prefix cache.
        tokens = {"type": "token", "prompt_token_ids": prompt, "cache_salt": secrets.token_hex(16)}
        last_of_all = {"priority": 2**31 - 1} if _scheduler(followed.client).policy == "priority" else {}
        return followed.generate(
            followed.client, tokens, params, id_, lora_request=followed.adapter, **last_of_all
        )

    async def _is_allowed(self, followed: Followed) -> bool:
        """Whether the worker has it sent: what it measures no longer could not be compared."""
        self._unanswered += 1
        async with asyncio.timeout(self._patience.answer_seconds):
            found = await allows(followed.client, followed.hash)
        self._unanswered = 0
        return found

    async def _has_room(self, client: Any) -> bool:
        """Whether the engine is at most half full, within our patience: then nobody waits because of us."""
        most = max(1, _scheduler(client).max_num_seqs // 2)
        try:
            async with asyncio.timeout(self._patience.room_seconds):
                while _unfinished(client) >= most:  # noqa: ASYNC110 - the engine tells nobody
                    await asyncio.sleep(self._patience.look_seconds)
        except TimeoutError:
            return False
        return True

    def _guarded(self, action: Callable[[Any], None], about: Any) -> None:
        try:
            action(about)
        except Exception as error:  # noqa: BLE001 - the edge of the host: the answer goes on
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self._errors += 1
        if self._unanswered == FAILURES_BEFORE_END:
            _log.warning("introspan: requests are not sent again: no worker says how many may be")
        if self._errors == 1:
            _log.warning("introspan: a request could not be sent again", exc_info=error)


def _scheduler(client: Any) -> Any:
    return client.vllm_config.scheduler_config


def _unfinished(client: Any) -> int:
    """How many requests the engine has; clients before vLLM 0.29 leave it to what they are made of to say."""
    says = client if hasattr(client, "get_num_unfinished_requests") else client.output_processor
    return int(says.get_num_unfinished_requests())


def refusal(config: Any) -> str | None:
    """Why requests of an engine of this configuration are not sent again, or None where they are."""
    from introspan.capture.runner.v1_runner import configuration_refusal  # noqa: PLC0415 - only where requests are sent again

    parallel = config.parallel_config
    # Behind an external balancer an API process has one rank, whatever their number is.
    has_one = getattr(parallel, "data_parallel_external_lb", False) and parallel.data_parallel_size_local == 1
    if parallel.data_parallel_size > 1 and not has_one:
        return "another of several data-parallel ranks may answer a request that is sent again"
    limits = ("max_num_queued_reqs", "max_num_queued_tokens")
    if any(getattr(config.scheduler_config, name, None) is not None for name in limits):
        return "the server refuses requests beyond a limit, towards which those sent again would count"
    return configuration_refusal(config)


def one_greedy_token() -> Any:
    """Parameters of vLLM for the likeliest next token, without reading the prefix cache."""
    from vllm import SamplingParams  # noqa: PLC0415 - only in a process that serves
    from vllm.sampling_params import RequestOutputKind  # noqa: PLC0415 - the same

    return SamplingParams(
        temperature=0.0,
        max_tokens=1,
        detokenize=False,
        skip_reading_prefix_cache=True,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
