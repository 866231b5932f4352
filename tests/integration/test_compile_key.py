"""What vLLM hashes into the key of its compile cache: all that shapes the tapped graph, and nothing else."""

import json

import pytest

from tests import likeness

CONFIGURE = """
import json, os
from vllm.engine.arg_utils import EngineArgs
from introspan.plugin import register
register()
clean, found = dict(os.environ), []
for given, env in json.loads(os.environ.pop("CASES")):
    os.environ.clear()
    os.environ.update(clean | env)
    EngineArgs(given).create_engine_config()
    found.append(EngineArgs(given).create_engine_config().additional_config)  # a server configures twice
print(json.dumps(found))
"""


@pytest.fixture
def configured(tmp_path):
    """additional_config of an engine for each case, and what was said; a case: INTROSPAN_* by their short names."""
    program = likeness.write(tmp_path)

    def run(*cases, given=()):
        env = [{f"INTROSPAN_{name.upper()}": value for name, value in case.items()} for case in cases]
        given = [*given, *({} for _ in cases[len(given) :])]
        return program(CONFIGURE, CASES=json.dumps(list(zip(given, env, strict=True))))

    return run


def test_what_shapes_the_graph_makes_a_key_of_its_own(configured):
    cases = (
        {},
        {"layers": "4"},
        {"layers": "all"},
        {"layers": "0,2"},
        {"projections": "off"},
        {"canary_key": "31" * 16},
    )
    found, log = configured(*cases, {"enabled": "off"})
    assert [set(config) for config in found] == [{"introspan_sdk"}] * len(cases) + [set()]
    assert len(set(map(json.dumps, found))) == len(found)
    assert "failed" not in log


def test_what_does_not_shape_the_graph_leaves_the_key_and_with_it_what_was_compiled(configured):
    others = {
        "endpoint": "127.0.0.1:2",
        "token_stride": "3",
        "attention_layers": "all",
        "request_rate": "0.5",
        "salt": "31" * 16,
        "replica": "b",
    }
    found, _ = configured({}, *({name: value} for name, value in others.items()))
    assert found == found[:1] * len(found)
    assert found[0]


def test_a_setting_in_the_engines_own_configuration_shapes_the_graph_like_one_of_the_environment(configured):
    mine = {"introspan": {"layers": "4"}, "another": 1}
    (own, environment), _ = configured({}, {"layers": "4"}, given=[mine])
    assert own == mine | environment


def test_a_wrong_setting_is_told_to_the_workers_which_say_nothing_more(configured):
    (found,), log = configured({"layers": "none"})
    assert found == {"introspan_sdk": "a setting is wrong, and the API process has said which"}
    assert "INTROSPAN_LAYERS" in log


def test_a_configuration_that_is_no_dictionary_is_left_as_it_is(configured):
    (found,), log = configured({}, given=[["of a platform's own kind"]])
    assert found == ["of a platform's own kind"]
    assert "failed" not in log
