"""What every dashboard keeps to: stable addresses, units, words, one datasource, nothing that a click can change."""

import re
from collections import Counter
from itertools import pairwise

import promql_parser
import pytest
import yaml

from deploy.grafana.build import files
from deploy.grafana.links import COLLECTOR, FLEET, INTERNALS, REQUESTS
from tests.deploy.boards import BOARDS, GRAFANA, asked, filled, panels

UIDS = {"introspan-fleet", "introspan-internals", "introspan-requests", "introspan-collector"}
"""Written down here once more: alerts, bookmarks and other people's pages hold them."""

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
PANELS = [(uid, panel) for uid, board in BOARDS.items() for panel in panels(board)]
TITLED = [pytest.param(panel, id=f"{uid}: {panel['title']}") for uid, panel in PANELS]


def test_the_committed_files_are_what_the_programs_make():
    made = files()
    assert {path.stem for path in made} == set(BOARDS)
    assert [path.name for path, text in made.items() if path.read_text() != text] == []


def test_addresses_of_dashboards_never_change():
    assert set(BOARDS) == {FLEET, INTERNALS, REQUESTS, COLLECTOR} == UIDS
    assert all(board["uid"] == uid for uid, board in BOARDS.items())
    assert all(board.get("id") is None for board in BOARDS.values())


def test_ids_and_titles_of_panels_are_unique_and_follow_from_the_title():
    for uid, board in BOARDS.items():
        everything = [
            *board["panels"],
            *(panel for row in board["panels"] for panel in row.get("panels", ())),
        ]
        assert max(Counter(panel["id"] for panel in everything).values()) == 1, uid
        assert max(Counter(panel["title"] for panel in everything).values()) == 1, uid
    first = {panel["title"]: panel["id"] for _, panel in PANELS}
    assert first["Canary by replica"] == 204353285


def test_nothing_can_be_edited_where_it_would_be_lost():
    for board in BOARDS.values():
        assert board["editable"] is False
    provider = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "introspan.yaml").read_text())
    assert [one["allowUiUpdates"] for one in provider["providers"]] == [False]


def test_a_dashboard_says_what_it_is_for_and_leads_to_the_others():
    for board in BOARDS.values():
        assert len(board["description"]) > 40
        assert [(link["type"], link["tags"], link["keepTime"]) for link in board["links"]] == [
            ("dashboards", ["introspan"], True)
        ]
        assert board["tags"] == ["introspan"]
        assert board["refresh"] == "30s"


@pytest.mark.parametrize("panel", TITLED)
def test_a_panel_has_a_title_a_unit_a_word_for_no_data_and_says_what_a_bad_picture_looks_like(panel):
    assert panel["title"]
    assert "Bad: " in panel["description"]
    assert 60 < len(panel["description"]) < 500
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"]
    assert defaults["noValue"]


@pytest.mark.parametrize("panel", TITLED)
def test_a_panel_asks_the_datasource_that_is_chosen(panel):
    assert panel["datasource"] == DATASOURCE
    for target in panel.get("targets", ()):
        assert target["datasource"] == DATASOURCE
    letters = [target["refId"] for target in panel.get("targets", ())]
    assert len(set(letters)) == len(letters)
    assert bool(letters) == (panel["type"] != "text")


def test_a_datasource_is_chosen_first_everywhere():
    for board in BOARDS.values():
        first, *others = board["templating"]["list"]
        assert (first["type"], first["query"], first["name"]) == ("datasource", "prometheus", "datasource")
        for one in others:
            assert one["type"] != "query" or one["datasource"] == DATASOURCE
        for one in board["annotations"]["list"]:
            assert one["datasource"] == DATASOURCE


@pytest.mark.parametrize("one", [one for b in BOARDS.values() for one in asked(b)], ids=lambda one: one.where)
def test_rates_are_over_the_interval_that_grafana_works_out(one):
    ranges = re.findall(r"(\w+)\([^()]*\[([^\]]+)\]", one.expression)
    for function, over in ranges:
        if function in ("avg_over_time", "stddev_over_time"):
            assert over == "$past"
        elif one.instant:
            assert (function, over) in {("increase", "$__range"), ("rate", "$__rate_interval")}
        else:
            assert (function, over) == ("rate", "$__rate_interval")


@pytest.mark.parametrize("one", [one for b in BOARDS.values() for one in asked(b)], ids=lambda one: one.where)
def test_counters_are_never_shown_without_a_rate_but_where_each_step_is_an_event(one):
    text = filled(
        one.expression,
        dict.fromkeys(("model", "replica", "adapter", "instance"), ".*")
        | dict.fromkeys(("__rate_interval", "__range", "past"), "1m"),
    )
    bare = []

    def visit(node):
        if isinstance(node, promql_parser.VectorSelector) and node.name.endswith("_total"):
            bare.append(node.name)

    promql_parser.walk(promql_parser.parse(text), pre_visit=visit)
    stepped = {"introspan_incidents_total", "introspan_notify_delivered_total"}
    in_ranges = set(re.findall(r"(\w+_total)\{[^}]*\}\[", text))
    counted = set(re.findall(r"count by \([^)]*\) \((\w+_total)\{", text))
    assert set(bare) - in_ranges - counted <= stepped


def test_every_variable_that_a_query_names_is_one_of_the_dashboard():
    for uid, board in BOARDS.items():
        has = {one["name"] for one in board["templating"]["list"]}
        expressions = [one.expression for one in asked(board)]
        expressions += [one["expr"] for one in board["annotations"]["list"]]
        named = {name for text in expressions for name in re.findall(r"\$\{?(\w+)", text)}
        assert {name for name in named if not name.startswith("__")} <= has, uid


def test_links_lead_to_dashboards_and_variables_that_there_are():
    variables = {uid: {one["name"] for one in board["templating"]["list"]} for uid, board in BOARDS.items()}
    urls = re.findall(r'"url": "(/d/[^"]+)"', "\n".join(path.read_text() for path in GRAFANA.rglob("*.json")))
    assert len(urls) > 10
    for url in urls:
        uid, _, query = url.removeprefix("/d/").partition("?")
        assert uid in UIDS
        names = {*re.findall(r"var-(\w+)=", query), *re.findall(r"\$\{(\w+):queryparam\}", query)}
        assert names <= variables[uid] | {"datasource"}, url


def test_an_alert_of_prometheus_leads_to_a_dashboard_about_its_model():
    variables = {uid: {one["name"] for one in board["templating"]["list"]} for uid, board in BOARDS.items()}
    rules = "\n".join(path.read_text() for path in (GRAFANA.parent / "prometheus" / "rules").glob("*.yml"))
    ways = re.findall(r"dashboard_url: \S+?/d/([\w-]+)(?:\?(\S*))?", rules)
    assert len(ways) > 20
    for uid, query in ways:
        assert uid in UIDS
        assert set(re.findall(r"var-(\w+)=", query)) <= variables[uid], uid


@pytest.mark.parametrize("uid", BOARDS)
def test_rows_of_panels_are_full_and_of_one_height(uid):
    board = BOARDS[uid]
    assert board["panels"][0]["type"] == "row"
    folded = [row["panels"] for row in board["panels"] if row["type"] == "row" and row["collapsed"]]
    open_ = [panel for panel in board["panels"] if panel["type"] != "row"]
    lines = {}
    for place, group in enumerate((open_, *folded)):
        for panel in group:
            lines.setdefault((place, panel["gridPos"]["y"]), []).append(panel["gridPos"])
    for line in lines.values():
        assert sum(one["w"] for one in line) == 24
        assert len({one["h"] for one in line}) == 1
        assert all(left["x"] + left["w"] == right["x"] for left, right in pairwise(line))


def test_what_follows_a_folded_row_stands_right_below_its_title():
    folded = 0
    for board in BOARDS.values():
        for row, following in pairwise(board["panels"]):
            if row["type"] == "row" and row["collapsed"]:
                folded += 1
                assert following["gridPos"]["y"] == row["gridPos"]["y"] + 1
    assert folded == 2


def test_a_row_asks_a_question_or_names_what_the_questions_are_about():
    for board in BOARDS.values():
        first = board["panels"][0]["title"]
        assert first.endswith("?")


def test_colours_are_those_that_the_colour_blind_tell_apart():
    safe = {"#0072B2", "#56B4E9", "#009E73", "#F0E442", "#E69F00", "#D55E00", "#CC79A7", "#8A8A8A"}
    text = "\n".join(path.read_text() for path in GRAFANA.rglob("*.json"))
    assert set(re.findall(r"#[0-9A-Fa-f]{6}\b", text)) <= safe
    schemes = {panel["options"]["color"]["scheme"] for _, panel in PANELS if panel["type"] == "heatmap"}
    assert schemes == {"PuOr", "Cividis"}


def test_nothing_is_coloured_red_or_green_by_name():
    text = "\n".join(path.read_text() for path in GRAFANA.rglob("*.json"))
    assert not re.findall(r'"(?:fixedColor|color|fill)": "(?:dark-|semi-dark-|light-)?(?:red|green)"', text)


def test_a_heatmap_of_layers_hides_no_negative_value():
    for _, panel in PANELS:
        if panel["type"] == "heatmap" and "layer" in panel["targets"][0]["legendFormat"]:
            assert panel["options"]["filterValues"]["le"] <= -1e6


def test_grafana_finds_datasources_and_dashboards_with_nothing_typed():
    datasources = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "introspan.yaml").read_text())
    by_uid = {one["uid"]: one for one in datasources["datasources"]}
    prometheus = by_uid["introspan-prometheus"]
    assert (prometheus["type"], prometheus["isDefault"]) == ("prometheus", True)
    (way,) = prometheus["jsonData"]["exemplarTraceIdDestinations"]
    assert way["name"] == "trace_id"
    assert by_uid[way["datasourceUid"]]["type"] == "tempo"
    # From it Grafana works out the interval of rates.
    scraped = yaml.safe_load((GRAFANA.parent / "prometheus" / "prometheus.yml").read_text())
    assert prometheus["jsonData"]["timeInterval"] == scraped["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "introspan.yaml").read_text())[
        "providers"
    ]
    where = provider["options"]["path"].replace("$GF_PATHS_PROVISIONING", str(GRAFANA / "provisioning"))
    assert sorted(path.stem for path in type(GRAFANA)(where).glob("*.json")) == sorted(UIDS)
