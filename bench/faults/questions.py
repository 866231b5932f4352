"""The canary's questions and a tokenizer in, the requests that a server would compute for them out."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaForCausalLM

from bench.faults.batch import BLOCK_TOKENS, Text
from introspan_collector.suite import GENERATED_TOKENS, QUESTIONS

Ids = NDArray[np.int64]
Messages = list[dict[str, str]]


# Any: a tokenizer of transformers, which is untyped.
@dataclass(frozen=True, slots=True, eq=False)
class Tokenization:
    """How a server makes token ids of a text, and a text of chat messages; faults replace either."""

    ids: Callable[[str], list[int]]
    chat: Callable[[Messages], str]


def of_model(tokenizer: Any) -> Tokenization:
    """The tokenizer's own."""

    def chat(messages: Messages) -> str:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    return Tokenization(lambda text: list(tokenizer(text).input_ids), chat)


def prompts(tokenization: Tokenization) -> dict[str, Ids]:
    """Token ids of the questions that are texts of their own."""
    found = {}
    for question in QUESTIONS:
        if question.source == "text":
            found[question.name] = np.array(tokenization.ids(question.text))
        elif question.source == "chat":
            messages = [{"role": role, "content": said} for role, said in json.loads(question.text)]
            found[question.name] = np.array(tokenization.ids(tokenization.chat(messages)))
    return found


@torch.inference_mode()
def generated(model: LlamaForCausalLM, prompt: Ids) -> Ids:
    """The tokens [8] that the model continues a prompt with greedily, whatever they are."""
    ids, cache = torch.from_numpy(prompt)[None], None
    found = []
    for _ in range(GENERATED_TOKENS):
        out = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        ids, cache = out.logits[:, -1].argmax(-1, keepdim=True), out.past_key_values
        found.append(int(ids))
    return np.array(found)


def requests(asked: Mapping[str, Ids], answers: Mapping[str, Ids]) -> dict[str, Text]:
    """Every question of the suite with the tokens it is answered with; the last of these has no row."""
    found = {}
    for question in QUESTIONS:
        answer = answers[question.name]
        if question.source == "repeat":
            prompt = asked[question.of]
            cached = (len(prompt) - 1) // BLOCK_TOKENS * BLOCK_TOKENS
            text = Text(np.append(prompt, answer[:-1]), len(prompt), question.of, cached)
        elif question.source == "extend":
            prompt = np.append(asked[question.of], answers[question.of][:-1])
            text = Text(np.append(prompt, answer[:-1]), len(prompt), question.of)
        else:
            prompt = asked[question.name]
            text = Text(np.append(prompt, answer[:-1]), len(prompt))
        found[question.name] = text
    return found


def answered(model: LlamaForCausalLM, asked: Mapping[str, Ids]) -> dict[str, Ids]:
    """Greedy answers to every question of the suite."""
    found: dict[str, Ids] = {name: generated(model, prompt) for name, prompt in asked.items()}
    for question in QUESTIONS:
        if question.source == "repeat":
            found[question.name] = found[question.of]
        elif question.source == "extend":
            found[question.name] = generated(model, np.append(asked[question.of], found[question.of][:-1]))
    return found
