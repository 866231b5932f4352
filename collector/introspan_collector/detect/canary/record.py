"""Baselines and rounds of canaries in, a JSON header and arrays out — and back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.canary.answer import Answer, Outputs, States
from introspan_collector.detect.canary.baseline import Baseline
from introspan_collector.detect.canary.comparison import Comparison
from introspan_collector.detect.canary.expected import Question
from introspan_collector.model import Origin

# Any throughout: what JSON can hold, and arrays of any type.
Arrays = dict[str, NDArray[Any]]
_ARRAYS = tuple(
    field.name for field in fields(Question) if field.name not in ("prompt_tokens", "output_floor")
)
_OUTPUTS = tuple(field.name for field in fields(Outputs) if field.name != "prompt_tokens")


def dump_baseline(baseline: Baseline, prefix: str, arrays: Arrays) -> dict[str, Any]:
    """The header of a baseline; its arrays are put among the others under names that begin with prefix."""
    arrays |= {f"{prefix}{key}": getattr(baseline, key) for key in ("distances", "step_limit")}
    questions = {}
    for name, question in baseline.questions.items():
        questions[name] = [question.prompt_tokens, question.output_floor]
        arrays |= {f"{prefix}{name}_{key}": getattr(question, key) for key in _ARRAYS}
    kept = (
        "model",
        "fingerprint",
        "engine_version",
        "dtype",
        "layer_count",
        "suite",
        "rank_limit",
        "replicas",
        "spread_floors",
        "largest_limit",
    )
    return {key: getattr(baseline, key) for key in kept} | {"questions": questions}


def load_baseline(header: dict[str, Any], prefix: str, arrays: Arrays) -> Baseline:
    """The baseline of a header and arrays."""
    questions = {
        name: Question(
            prompt_tokens=prompt_tokens,
            output_floor=output_floor,
            **{key: arrays[f"{prefix}{name}_{key}"] for key in _ARRAYS},
        )
        for name, (prompt_tokens, output_floor) in header["questions"].items()
    }
    many = {key: tuple(header[key]) for key in ("replicas", "spread_floors")}
    return Baseline(
        **header | {"questions": questions, **many},
        distances=arrays[f"{prefix}distances"],
        step_limit=arrays[f"{prefix}step_limit"],
    )


def dump_rounds(rounds: Sequence[Mapping[str, Answer]], prefix: str, arrays: Arrays) -> list[list[Any]]:
    """The header of rounds; one array holds what all answers have of a kind, one after another."""
    answers = [answer for one in rounds for answer in one.values()]
    for key in _OUTPUTS:
        arrays[prefix + key] = _stacked([getattr(answer.outputs, key) for answer in answers])
    states = [answer.states for answer in answers if answer.states is not None]
    arrays[f"{prefix}state_position"] = _stacked([one.position for one in states])
    arrays[f"{prefix}state_values"] = _stacked([one.values for one in states])
    return [[_described(answer) for answer in one.values()] for one in rounds]


def load_rounds(header: list[list[Any]], prefix: str, arrays: Arrays) -> list[Mapping[str, Answer]]:
    """The rounds of a header and arrays."""
    row = state_row = 0
    rounds: list[Mapping[str, Answer]] = []
    for described in header:
        answers = {}
        for one in described:
            end = row + one["positions"]
            outputs = Outputs(
                one["prompt_tokens"], **{key: arrays[prefix + key][row:end] for key in _OUTPUTS}
            )
            row = end
            states = None
            if one["states"] is not None:
                count, nonfinite = one["states"]
                taken = slice(state_row, state_row + count)
                states = States(
                    arrays[f"{prefix}state_position"][taken],
                    arrays[f"{prefix}state_values"][taken],
                    nonfinite,
                )
                state_row += count
            origin = _origin(one["origin"])
            answers[one["prompt"]] = Answer(
                one["suite"],
                one["prompt"],
                one["round"],
                one["received_unix_nano"],
                origin,
                outputs,
                states,
                one["asked"],
                one["signed"],
            )
        rounds.append(answers)
    return rounds


def load_round(found: dict[str, Any]) -> dict[str, Any]:
    """The fields of a finished round."""
    comparison = found["comparison"]
    if comparison is not None:
        many = {key: tuple(comparison[key]) for key in ("state_ratio", "step_ratio")}
        comparison = Comparison(**comparison | many)
    return found | {
        "origin": _origin(found["origin"]),
        "questions": tuple(found["questions"]),
        "comparison": comparison,
    }


def _origin(found: dict[str, Any]) -> Origin:
    return Origin(**found | {"attributes": tuple((key, value) for key, value in found["attributes"])})


def _described(answer: Answer) -> dict[str, Any]:
    states = answer.states
    kept = ("suite", "prompt", "round", "received_unix_nano", "asked", "signed")
    return {key: getattr(answer, key) for key in kept} | {
        "origin": asdict(answer.origin),
        "prompt_tokens": answer.outputs.prompt_tokens,
        "positions": len(answer.outputs.position),
        "states": None if states is None else [len(states.position), states.nonfinite],
    }


def _stacked(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(arrays) if arrays else np.zeros(0)
