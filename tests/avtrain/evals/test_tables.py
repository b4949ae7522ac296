"""One name per network, in tables, figures and reports."""

from __future__ import annotations

from dataclasses import replace

from avtrain.evals.tables import format_interval, format_value, name_network
from tests.support.made_results import result


def test_a_network_has_one_name_in_tables_and_figures() -> None:
    network = result("AVSA", 0.5, transformer=True).network
    name = name_network(network, mark="runs/a")
    assert name.cells() == {
        "pretraining": "AVSA, 2000 steps (runs/a)",
        "features": "log-mel",
        "transformer": "yes",
    }
    assert name.cells(with_steps=False)["pretraining"] == "AVSA (runs/a)"
    assert name.label == "AVSA: log-mel, transformer (runs/a)"
    assert name.title == "AVSA, 2000 steps"
    more = name_network(replace(network, norm_first=True, positions="direction", audio="mono"))
    assert more.cells()["transformer"] == "norm first"
    assert more.architecture == "mono log-mel, transformer, norm first, positions"
    relative = name_network(replace(network, norm_first=True, positions="relative"))
    assert relative.cells()["transformer"] == "relative"
    assert relative.architecture == "log-mel, transformer, relative"


def test_untrained_networks_have_no_pretraining_and_no_transformer_settings() -> None:
    network = replace(result("none", 0.5).network, norm_first=True, positions="direction")
    name = name_network(network)
    assert name.cells() == {"pretraining": "none", "features": "log-mel", "transformer": "no"}
    assert name.label == "untrained: log-mel"
    assert name.title == "untrained"


def test_values_have_one_digit_and_shares_are_percentages() -> None:
    assert format_value(0.1234, "%") == "12.3"
    assert format_value(23.456, "°") == "23.5"
    assert format_interval((0.1, 0.25), "%") == "10.0 to 25.0"
    assert format_interval(None, "%") == "-"
