"""Command-line options made from the settings of a suite."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.main import get_command

from tokbench.cli import app
from tokbench.cli.check import AGAINST, TWO_RESULTS
from tokbench.cli.options import (
    AT_HELP,
    HEADINGS,
    RUN,
    SUITE_FIELDS,
    parse_list,
    parse_settings,
    resolve_suite,
    suite_options,
)
from tokbench.config import Config, load_config
from tokbench.errors import UserError
from tokbench.suite import Suite

Run = Callable[..., tuple[int, str, str]]

# An option's value on the command line, and the value that the suite gets.
VALUES: dict[str, tuple[str | None, Any]] = {
    "models": ("deit_tiny_patch16_224,digits_deit", ("deit_tiny_patch16_224", "digits_deit")),
    "methods": ("tome,token_pooling(algorithm=kmeans, iterations=3)",
                ("tome", "token_pooling(algorithm=kmeans, iterations=3)")),
    "keep": ("0.9,0.25", (0.9, 0.25)),
    "schedule": ("every_block,budget(0.7,0.5,at=2-5)", ("every_block", "budget(0.7,at=2-5)", "budget(0.5,at=2-5)")),
    "site": ("after_block", "after_block"),
    "position": ("destination", "destination"),
    "baselines": ("208,192", (208, 192)),
    "only": ("latency,macs", ("latency", "macs")),
    "limit": ("17", 17),
    "seeds": ("3,4", (3, 4)),
    "analyse": (None, True),
    "data": ("my images/val", "my images/val"),
    "split": ("val", "val"),
    "classes": ("names.txt", Path("names.txt")),
    "labels": ("labels.csv", Path("labels.csv")),
    "image_column": ("img", "img"),
    "label_column": ("fine_label", "fine_label"),
    "calibration": ("my images/rest", "my images/rest"),
    "set_apart": ("0.2", 0.2),
    "calibration_limit": ("11", 11),
    "train": ("my images/train", "my images/train"),
    "weights": ("my models/a,b.pth", ("'my models/a,b.pth'",)),
    "checkpoint": ("a.pth,my models/b", ("a.pth", "my models/b")),
    "no_ema": (None, True),
    "img_size": ("96", 96),
    "accuracy_batch": ("7", 7),
    "workers": ("5", 5),
    "cache": ("kept", Path("kept")),
    "memory": ("99", 99),
    "device": ("cuda:1", "cuda:1"),
    "dtype": ("bf16", "bf16"),
    "threads": ("3", 3),
    "batch_size": ("1,8", (1, 8)),
    "mode": ("eager,compile+cudagraph", ("eager", "compile+cudagraph")),
    "cold": (None, True),
    "throughput_batch": ("48", 48),
    "seconds": ("0.5", 0.5),
    "timeout": ("60", 60.0),
    "precision": ("0.02", 0.02),
}  # fmt: skip
COMMANDS = list(get_command(app).commands)  # type: ignore[attr-defined]
FROM_SUITE = set(Suite.model_fields) - {"description"}


def parameters(command: str) -> dict[str, Any]:
    """The parameters of a command by name."""
    return {one.name: one for one in get_command(app).commands[command].params}  # type: ignore[attr-defined]


def help_of(command: str, columns: str) -> list[str]:
    arguments = [sys.executable, "-m", "tokbench", *command.split(), "--help"]
    printed = subprocess.run(
        arguments, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": columns}
    )
    return printed.stdout.splitlines()


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Suite]:
    """The suites that a command builds; it stops there."""
    suites: list[Suite] = []
    build = Config.suite

    def stop(self: Config, name: str, overrides: dict[str, Any]) -> Suite:
        suites.append(build(self, name, overrides))
        raise UserError("stop here")

    monkeypatch.setattr(Config, "suite", stop)
    return suites


def test_every_field_of_a_suite_is_under_one_heading_and_has_an_option() -> None:
    assert sorted(SUITE_FIELDS) == sorted(FROM_SUITE) == sorted(VALUES)
    assert set(parameters("compare")) >= {*FROM_SUITE, "at"}
    assert all(Suite.model_fields[name].description for name in Suite.model_fields)


@pytest.mark.parametrize("command", ["compare", "show", "check"])
def test_the_help_of_an_option_is_the_description_of_its_field(command: str) -> None:
    options = parameters(command)
    shared = FROM_SUITE & set(options) - ({"seconds"} if command == "check" else set())  # check's own threshold
    assert len(shared) >= 6
    for name in shared:
        description, *default = options[name].help.split(" [default: ")
        assert description == Suite.model_fields[name].description
        assert len(default) <= 1
        assert f"--{name.replace('_', '-')}" in options[name].opts
        assert description.endswith(".")
    if "schedule" in shared:
        assert options["at"].help == AT_HELP


@pytest.mark.parametrize("name", VALUES)
def test_an_option_reaches_the_suite(run: Run, built: list[Suite], name: str) -> None:
    text, expected = VALUES[name]
    given = [f"--{name.replace('_', '-')}", *([] if text is None else [text])]
    given += [] if name == "baselines" else ["--baselines=auto"]  # the suite's
    code, _, err = run("compare", "imagenet", *given)
    assert (code, err) == (2, "tokbench: stop here\n")
    config = load_config()
    without = Suite(**{**config.defaults, **config.suites["imagenet"]})
    assert getattr(without, name) != expected
    assert built == [without.model_copy(update={name: expected})]


def test_a_flag_can_be_turned_off_again(run: Run, built: list[Suite], tmp_path: Path) -> None:
    (tmp_path / "tokbench.toml").write_text("[defaults]\nanalyse = true\n")
    run("compare")
    run("compare", "--no-analyse")
    assert [suite.analyse for suite in built] == [True, False]


@pytest.mark.parametrize("at", ["3,6,9", "3-6-9", "3, 6, 9", " 3 - 6-9"])
def test_at_is_short_for_stages(at: str) -> None:
    assert parse_settings({"at": at, "keep": None}) == {"schedule": ("stages(at=3-6-9)",)}


def test_defaults_in_the_help_are_those_of_the_packaged_config() -> None:
    config = load_config()
    required: dict[str, Any] = {"models": ("x",), "methods": ("y",)}
    assert Suite(**required, **config.defaults) == Suite(**required)
    assert "[default: 0.01]" in parameters("compare")["precision"].help
    assert "[default: from the suite]" in parameters("compare")["models"].help


def test_headings_are_in_order() -> None:
    lines = help_of("compare", "80")
    headings = [line.rstrip(":") for line in lines if line and not line.startswith((" ", "Usage"))]
    assert headings == ["Arguments", *HEADINGS, RUN]
    assert lines[-1].split()[0] == "--help"
    written = [line.split()[0] for line in lines if line.startswith("  --")]
    options = [f"--{name.replace('_', '-')}" for name in SUITE_FIELDS]
    assert [one for one in written if one in options] == options
    assert written.index("--at") == written.index("--schedule") + 1


def test_check_groups_its_options_by_what_is_compared() -> None:
    headings = [line.rstrip(":") for line in help_of("check", "80") if line and not line.startswith((" ", "Usage"))]
    assert headings == ["Arguments", TWO_RESULTS, AGAINST, RUN]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_a_terminal_of_80_columns(command: str) -> None:
    assert max(map(len, help_of(command, "80"))) <= 80


def test_the_list_of_commands_is_not_cut() -> None:
    assert not [line for line in help_of("", "80") if line.endswith("...") and not line.startswith("Usage")]


WORDS = st.from_regex(r"[a-z_]{1,6}(\([a-z]=[0-9]{1,2}(, ?[a-z]=[0-9])*\))?", fullmatch=True)


@given(st.lists(WORDS, min_size=1, max_size=5), st.sampled_from([",", ", ", " ,"]))
def test_lists_split_at_commas_outside_parentheses(items: list[str], separator: str) -> None:
    assert parse_list("methods", separator.join(items)) == tuple(items)


@given(st.lists(WORDS, min_size=2, max_size=5))
def test_the_suggestion_for_a_list_separated_by_spaces_is_the_list(items: list[str]) -> None:
    with pytest.raises(UserError, match="separate items by commas") as raised:
        parse_list("methods", " ".join(items))
    suggested = str(raised.value).partition("as in --methods ")[2]
    assert parse_list("methods", suggested) == tuple(items)


def test_keep_is_an_error_only_if_it_was_given() -> None:
    config = load_config()
    base = {"keep": ("0.5",), "schedule": "budget(0.7)"}
    assert resolve_suite(config, None, {}, base).keep == (0.5,)
    with pytest.raises(UserError, match=r"schedule 'budget\(0.7\)' already fixes the token counts: drop --keep"):
        resolve_suite(config, None, {"keep": ("0.5",)}, base)


def test_a_decorated_command_gets_only_what_was_given() -> None:
    seen: list[dict[str, Any]] = []

    @suite_options("keep", "limit")
    def command(*, settings: dict[str, Any], out: str = "x") -> None:
        seen.append({"settings": settings, "out": out})

    command(keep="0.5,0.4", limit=None, out="y")
    command(keep=None, limit=3)
    assert seen == [{"settings": {"keep": ("0.5", "0.4")}, "out": "y"}, {"settings": {"limit": 3}, "out": "x"}]


def test_claims_can_be_selected_by_method_and_model(run: Run) -> None:
    selection = ("--methods", "tome", "--models", "deit-s", "--json")
    code, out, _ = run("list", "claims", *selection)
    rows = json.loads(out)
    assert code == 0
    assert {row["method"] for row in rows} == {"tome"}
    assert 79.36 in {row["top1"] for row in rows}
    assert all("deit-s" in row["published_model"].lower() for row in rows)
    everything = json.loads(run("list", "claims", "--json")[1])
    assert len(everything) > len(rows)
    assert json.loads(run("list", "methods", "--claims", "--json")[1]) == everything
    assert json.loads(run("list", "methods", "--claims", *selection)[1]) == rows
