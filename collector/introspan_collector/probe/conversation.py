"""A question and a served model's address in, what its OpenAI-compatible API returned out."""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from introspan_collector.suite import GENERATED_TOKENS, Question
from introspan_wire.signals import TOP_TOKENS

RANK_HEADER = "X-data-parallel-rank"
"""vLLM's header that names the data-parallel engine which is to answer, counted among those behind the address."""

_MOST_BYTES = 64 * 2**20
_NO_RANK = str(2**30)
_RANKS = re.compile(r"out of range \[0, (\d{1,4})\)")
_NOT_SERVED = (404, 405, 501)
_SERVER_ERROR = 500
_REMEDIES = {
    401: "; give the server's key with --api-key-file or canary.api_key_file",
    403: "; give the server's key with --api-key-file or canary.api_key_file",
    404: "; the server must be vLLM's own, and still serve the model",
}


class ProbeError(Exception):
    """A question that was not answered; the text says what was asked, what came back, and what to do.

    status: of the answer over HTTP, None where there was none.
    """

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Reply:
    """What one question was answered. positions follow one another; the first is that of the first token's row.

    request_id: as the API names the request; prompt, generated: token ids; likely: for each position from `first` on
    the log-probabilities of tokens that the API gave, the own next token's among them.
    """

    request_id: str
    prompt: tuple[int, ...]
    generated: tuple[int, ...]
    first: int
    likely: tuple[dict[int, float], ...]


@dataclass(frozen=True, slots=True)
class Asking:
    """How to ask: the model's name, an id and token that mark the canary, and a salt for the prefix cache.

    rank: the data-parallel engine that is to answer, None where there is one. tokens: to generate.
    """

    model: str
    request_id: str
    token: str | None
    xarg: str
    cache_salt: str
    rank: int | None = None
    tokens: int = GENERATED_TOKENS

    def headers(self) -> dict[str, str]:
        """What goes with the request beside its body."""
        rank = {} if self.rank is None else {RANK_HEADER: str(self.rank)}
        return {"X-Request-Id": self.request_id, **rank}


class Conversation:
    """A connection to one server. Raises ProbeError only. May be asked by several threads at once."""

    def __init__(self, url: str, api_key: str | None, timeout_seconds: float) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout_seconds = timeout_seconds
        try:
            self._client = httpx.Client(base_url=self.url, headers=headers, timeout=timeout_seconds)
        except (httpx.InvalidURL, ValueError) as error:
            raise ProbeError(
                f"{url!r} cannot be asked, it must be http(s)://host[:port]: {error!r}"
            ) from error

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()

    def models(self) -> list[str]:
        """The names that the server serves models under, adapters left out."""
        found = self._call("GET", "/v1/models", None, {})
        try:
            return [str(model["id"]) for model in found["data"] if not model.get("parent")]
        except (KeyError, TypeError, AttributeError) as error:
            raise ProbeError(
                f"{self.url}/v1/models names no models ({error!r}): it must be vLLM's own server"
            ) from error

    def ranks(self, model: str) -> int:
        """How many data-parallel engines answer at this address.

        The server says it where it refuses a rank that there is not; one that says no such thing has one.
        """
        body = {"model": model, "prompt": [0], "max_tokens": 1}
        try:
            self._call("POST", "/v1/completions", body, {RANK_HEADER: _NO_RANK})
        except ProbeError as error:
            if (said := _RANKS.search(str(error))) is not None:
                return max(int(said[1]), 1)
            if error.status is None or error.status >= _SERVER_ERROR:
                raise
        return 1

    def tokens(self, model: str, question: Question) -> tuple[int, ...] | None:
        """The tokens that a question of text or chat becomes; None where the server does not say it."""
        body = {"messages": _messages(question)} if question.source == "chat" else {"prompt": question.text}
        try:
            found = self._call("POST", "/tokenize", {"model": model, **body}, {})
            return tuple(int(token) for token in found["tokens"])
        except ProbeError as error:
            if error.status not in _NOT_SERVED:
                raise
            return None
        except (KeyError, TypeError, ValueError) as error:
            raise ProbeError(
                f"{self.url}/tokenize answered {question.name!r} without its tokens ({error!r}): it must be vLLM's own "
                "server"
            ) from error

    def beside(self, prompt: Sequence[int], asking: Asking) -> None:
        """Has something generated that nobody looks at, so that it is in the batch with what is asked."""
        self._call("POST", "/v1/completions", {"prompt": list(prompt), **_marks(asking)}, asking.headers())

    def ask(self, question: Question, asking: Asking, before: dict[str, Reply]) -> Reply:
        """The answer to a question. before: the answers to those asked earlier, by name."""
        path, body = _request(question, before)
        body |= {"return_token_ids": True, "return_tokens_as_token_ids": True, **_marks(asking)}
        found = self._call("POST", path, body, asking.headers())
        try:
            return _reply(found)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            raise ProbeError(
                f"{self.url}{path} answered {question.name!r} without what a canary compares ({error!r}): it must be "
                "vLLM's own server, which returns prompt_logprobs and token ids"
            ) from error

    # Any: JSON.
    def _call(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
        until = time.monotonic() + self._timeout_seconds
        content = b""
        try:
            with self._client.stream(method, path, json=body, headers=headers) as response:
                for part in response.iter_bytes():
                    content += part
                    # The client's own limit is for each part: a server could go on for ever.
                    if len(content) > _MOST_BYTES or time.monotonic() > until:
                        raise ProbeError(
                            f"{self.url}{path} did not end its answer within {self._timeout_seconds:g} s and "
                            f"{_MOST_BYTES} bytes: is it vLLM?"
                        )
            if not response.is_success:
                said = content[:200].decode(errors="replace")
                remedy = _REMEDIES.get(response.status_code, "")
                raise ProbeError(
                    f"{self.url}{path} refused with {response.status_code}: {said}{remedy}",
                    response.status_code,
                )
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise ProbeError(f"{self.url}{path} did not answer: {error!r}; is the server up?") from error
        try:
            return json.loads(content)
        except ValueError as error:
            said = content[:50].decode(errors="replace")
            raise ProbeError(
                f"{self.url}{path} answered with no JSON, but with {said!r}: is it vLLM's own server?"
            ) from error


# Any: JSON.
def _marks(asking: Asking) -> dict[str, Any]:
    marks: dict[str, Any] = {
        "model": asking.model,
        "cache_salt": asking.cache_salt,
        "max_tokens": asking.tokens,
        "temperature": 0,
        "ignore_eos": True,
        # A model's own generation settings may have others; and only what is plain is taken for a canary.
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }
    if asking.token is not None:
        marks["vllm_xargs"] = {asking.xarg: asking.token}
    return marks


# Any: JSON.
def _request(question: Question, before: dict[str, Reply]) -> tuple[str, dict[str, Any]]:
    likely = {"logprobs": TOP_TOKENS, "prompt_logprobs": TOP_TOKENS}
    if question.source == "text":
        return "/v1/completions", {"prompt": question.text, **likely}
    if question.source == "chat":
        chat = {"messages": _messages(question), "logprobs": True, "top_logprobs": TOP_TOKENS}
        return "/v1/chat/completions", {**chat, "prompt_logprobs": TOP_TOKENS}
    prompt = list(made_of(question, before))
    if question.source == "repeat":
        # Log-probabilities of the prompt would have the engine pass over its prefix cache.
        return "/v1/completions", {"prompt": prompt, "logprobs": TOP_TOKENS}
    return "/v1/completions", {"prompt": prompt, **likely}


def made_of(question: Question, before: dict[str, Reply]) -> tuple[int, ...]:
    """The prompt of a question that is made of an earlier one's answer."""
    earlier = before[question.of]
    if question.source == "repeat":
        return earlier.prompt
    # The last generated token has no row yet; the one before is the last that was computed.
    return (*earlier.prompt, *earlier.generated[:-1])


def _messages(question: Question) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in json.loads(question.text)]


def _reply(found: Any) -> Reply:
    choice = found["choices"][0]
    prompt = tuple(found.get("prompt_token_ids") or choice["prompt_token_ids"])
    generated = tuple(choice["token_ids"])
    given = choice.get("prompt_logprobs") or found.get("prompt_logprobs")
    likely = [] if given is None else [_of_prompt(position) for position in given[1:]]
    likely += _of_generated(choice["logprobs"])
    first = len(prompt) - 1 if given is None else 0
    if not generated or len(likely) != len(prompt) - 1 - first + len(generated):
        raise ValueError(f"log-probabilities of {len(likely)} positions")
    return Reply(found["id"], prompt, generated, first, tuple(likely))


def _of_prompt(position: dict[str, dict[str, float]]) -> dict[int, float]:
    return {int(token): one["logprob"] for token, one in position.items()}


def _of_generated(logprobs: Any) -> list[dict[int, float]]:
    if "content" in logprobs:
        return [
            {_id(one["token"]): one["logprob"] for one in (position, *position["top_logprobs"])}
            for position in logprobs["content"]
        ]
    return [
        {_id(name): value for name, value in {**top, token: own}.items()}
        for top, token, own in zip(
            logprobs["top_logprobs"], logprobs["tokens"], logprobs["token_logprobs"], strict=True
        )
    ]


def _id(token: str) -> int:
    return int(token.removeprefix("token_id:"))
