"""The choice among forms: a pure function of measurements, remembered for the machine they were made on."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.engine import linear_tuning
from atomr_trio.engine.linear import Int8Weight
from atomr_trio.engine.linear_choices import (
    choices_file,
    load_choices,
    machine_tag,
    parse_choices,
    save_choices,
)
from atomr_trio.engine.linear_forms import candidates
from atomr_trio.engine.linear_tuning import decide, measure, tune, tune_shape

MACHINE = machine_tag("1.0", "cpu")
CHOICES = {"6x5": ((2, "row by row"), (8, "turned")), "4x5": ((2, "dot"),)}

times = st.lists(st.floats(1e-6, 10), min_size=1, max_size=9)


def weight(outputs=6, inputs=5, activations="int16"):
    values = np.random.default_rng(0).integers(-127, 128, (outputs, inputs), np.int8)
    return Int8Weight(jnp.asarray(values), jnp.ones(outputs), activations)


def tree():
    layers = [{"norm": jnp.ones(5), "a": weight(), "b": weight(4), "c": weight(3, activations="float")} for _ in "ab"]
    return {"layers": layers, "embed": jnp.ones((3, 5))}


@given(st.dictionaries(st.sampled_from("abcd"), times, min_size=1), st.data())
def test_the_default_stays_unless_another_is_a_tenth_faster(seconds, data):
    default = data.draw(st.sampled_from(sorted(seconds)))
    chosen = decide(seconds, default)
    medians = {name: float(np.median(taken)) for name, taken in seconds.items()}
    if chosen == default:
        assert all(taken >= 0.9 * medians[default] for taken in medians.values())
    else:
        assert medians[chosen] < 0.9 * medians[default]
        assert medians[chosen] == min(medians.values())


@given(
    st.dictionaries(st.sampled_from("abcd"), st.floats(1e-6, 10), min_size=2),
    st.lists(st.floats(1e-9, 1e3), min_size=4, max_size=4),
    st.integers(2, 4),
    st.data(),
)
def test_one_disturbed_run_of_each_decides_nothing(usual, disturbances, quiet, data):
    default = data.draw(st.sampled_from(sorted(usual)))
    disturbed = {name: [odd, *[usual[name]] * quiet] for name, odd in zip(usual, disturbances, strict=False)}
    assert decide(disturbed, default) == decide({name: [taken] for name, taken in usual.items()}, default)


@given(st.dictionaries(st.sampled_from("abcd"), times, min_size=1))
def test_the_order_of_the_table_does_not_matter(seconds):
    default = min(seconds)
    assert decide(dict(reversed(seconds.items())), default) == decide(seconds, default)


@pytest.mark.parametrize(("each", "rounds"), [(0.0, 8), (0.024, 3), (0.012, 5), (9.0, 3)])
def test_measurements_take_turns_and_end(each, rounds):
    calls, now = [], [0.0]

    def run(name):
        calls.append(name)
        now[0] += each

    seconds = measure({name: partial(run, name) for name in "ab"}, lambda: now[0])
    assert calls == list("ab") * rounds
    assert {name: taken == pytest.approx([each] * rounds) for name, taken in seconds.items()} == {"a": True, "b": True}


def test_real_measurements_choose_forms_that_apply():
    for rows, name in tune_shape([weight().values] * 2):
        assert name in {form.name for form in candidates("integers", jax.default_backend(), rows)}


@pytest.fixture
def tuned(monkeypatch):
    """Measurements without a clock: every shape gets the last form; returns the shapes that were measured."""
    asked = []

    def tune_shape(matrices):
        asked.append((*matrices[0].shape, len(matrices)))
        return ((2, candidates("integers", "cpu", 2)[-1].name),)

    monkeypatch.setattr(linear_tuning, "tune_shape", tune_shape)
    return asked


def forms(tree):
    return [layer[name].forms for layer in tree["layers"] for name in "abc"]


def test_integer_weights_are_told_and_nothing_else_changes(tuned):
    before, after = tree(), tune(tree(), None)
    expected = ((2, candidates("integers", "cpu", 2)[-1].name),)
    assert forms(after) == [expected, expected, ()] * 2
    assert tuned == [(6, 5, 2), (4, 5, 2)]
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_next_process_measures_nothing(tuned, tmp_path):
    first = forms(tune(tree(), str(tmp_path)))
    tuned.clear()
    assert forms(tune(tree(), str(tmp_path))) == first
    assert tuned == []


def test_a_new_shape_is_measured_and_the_others_are_kept(tuned, tmp_path):
    tune({"a": weight()}, str(tmp_path))
    tune({"b": weight(4)}, str(tmp_path))
    tuned.clear()
    tune(tree(), str(tmp_path))
    assert tuned == []


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff\xfe", b'{"machine": 1}'])
def test_a_damaged_file_is_measured_again_and_replaced(tuned, tmp_path, damage):
    path = choices_file(str(tmp_path))
    path.write_bytes(damage)
    first = forms(tune(tree(), str(tmp_path)))
    assert len(tuned) == 2
    assert forms(tune(tree(), str(tmp_path))) == first
    assert len(tuned) == 2


def test_a_folder_that_cannot_be_written_costs_only_the_memory(tuned, tmp_path):
    (tmp_path / "file").write_text("")
    tune(tree(), str(tmp_path / "file"))
    tune(tree(), str(tmp_path / "file"))
    assert len(tuned) == 4


def test_no_integer_weights_need_no_machine(tuned, tmp_path):
    tune({"a": jnp.ones(3), "b": weight(activations="float")}, str(tmp_path))
    assert tuned == []
    assert not list(tmp_path.iterdir())


def test_choices_survive_the_disk(tmp_path):
    path = tmp_path / "new" / "choices.json"
    save_choices(path, MACHINE, CHOICES)
    assert load_choices(path, MACHINE) == CHOICES
    assert [entry.name for entry in path.parent.iterdir()] == ["choices.json"]


@pytest.mark.parametrize("change", [{"jax": "2.0"}, {"backend": "gpu"}, {"processor": "other"}, {"cores": -1}])
def test_another_machines_choices_are_not_used(tmp_path, change):
    save_choices(tmp_path / "choices.json", MACHINE, CHOICES)
    content = json.loads((tmp_path / "choices.json").read_bytes())
    content["machine"].update(change)
    assert parse_choices(json.dumps(content).encode(), MACHINE) == {}


@pytest.mark.parametrize("choice", [(2, "exact"), (2, "gone"), (8, "row by row"), (0, "dot"), (-3, "dot")])
def test_a_file_that_names_what_does_not_apply_is_not_used(tmp_path, choice):
    save_choices(tmp_path / "choices.json", MACHINE, {**CHOICES, "7x7": (choice,)})
    assert load_choices(tmp_path / "choices.json", MACHINE) == {}
