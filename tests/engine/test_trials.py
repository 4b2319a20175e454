"""Who is to blame for failed steps: a bug in the data of some fails them, and nobody else."""

from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.engine.frames import SequenceRequest
from atomr_trio.engine.sequence import Sequence
from atomr_trio.engine.trials import Trials


def sequences(count):
    return [Sequence.of(SequenceRequest(id=number, prompt_ids=[1], max_tokens=9), number) for number in range(count)]


@given(data=st.data(), count=st.integers(1, 8))
def test_those_are_guilty_who_fail_alone_and_all_others_go_on(data, count):
    open_ones = sequences(count)
    bad = data.draw(st.sets(st.sampled_from(open_ones)))
    trials, convicted, steps = Trials(), [], 0
    while bad & set(open_ones):
        suspect = trials.next(open_ones.__contains__)
        company = st.lists(st.sampled_from(open_ones), min_size=1, unique=True) if steps < 50 else st.just(open_ones)
        present = data.draw(company) if suspect is None else [suspect]
        if bad & set(present):
            guilty = trials.failed(present)
            convicted += guilty
            open_ones = [one for one in open_ones if one not in guilty]
        else:
            trials.landed(present, present)
        steps += 1
    assert set(convicted) <= bad


def test_a_suspect_that_left_is_not_tried():
    first, second = sequences(2)
    trials = Trials()
    assert trials.failed([first, second]) == []
    assert trials.next(lambda one: one is second) is second
    assert trials.next(lambda one: True) is second


def test_a_suspect_is_free_with_a_token_not_with_a_step():
    first, second = sequences(2)
    trials = Trials()
    trials.failed([first, second])
    trials.landed([first], [])
    assert trials.next(lambda one: True) is first
    trials.landed([first], [first])
    assert trials.next(lambda one: True) is second


def test_company_that_fails_in_vain_again_and_again_is_guilty():
    both = sequences(2)
    trials = Trials()
    verdicts = []
    for _ in range(4):
        verdicts.append(trials.failed(both))
        for one in both:
            trials.landed([one], [one])
    assert verdicts == [[], [], [], both]


@given(alone=st.lists(st.booleans(), max_size=8))
def test_what_failed_for_others_convicts_nobody(alone):
    trials = Trials()
    for incident in alone:
        company = sequences(1 if incident else 2)
        assert trials.failed(company) == []
        for one in company:
            assert trials.next(company.__contains__) is one
            trials.landed([one], [one])
        assert trials.next(lambda one: False) is None
    both = sequences(2)
    assert trials.failed(both) == []


def test_failures_of_one_alone_are_not_the_companys():
    both = first, _ = sequences(2)
    trials = Trials()
    for _ in range(4):
        assert trials.failed([first]) == []
        trials.landed([first], [first])
    assert trials.failed(both) == []


def test_company_that_does_well_has_its_patience_back():
    both = sequences(2)
    trials = Trials()
    for _ in range(10):
        assert trials.failed(both) == []
        for one in both:
            trials.landed([one], [one])
        trials.landed(both, both)
