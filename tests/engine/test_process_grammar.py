"""Grammars in the device process: the vocabulary comes once, a bad grammar harms its own request, aborts find all."""

import re

import pytest
from engine_kit import CONFIG, request, tiny_settings
from test_process import Child

from atomr_trio.core import BadRequest, Grammar
from atomr_trio.engine import frames as f

END = CONFIG.vocab_size - 1
VOCABULARY = f.Vocabulary([bytes([id]) for id in range(END)] + [b"<end>"], [END], [END])


@pytest.fixture(scope="module")
def child(programs_dir):
    child = Child()
    child.configure(tiny_settings(programs_dir))
    yield child
    child.close()


def asked(number, pattern="[A-C]{3}", **changes):
    values = {"temperature": 1.0, "seed": number, "eos_ids": [END], **changes}
    return request(number, [1, 2], 30, grammar=Grammar("regex", pattern), **values)


def test_answers_keep_to_their_grammars(child):
    child.send(f.Add([asked(0)]))
    rejected = child.until(f.Rejected)
    assert (rejected.id, rejected.kind) == (0, BadRequest.kind)
    child.send(VOCABULARY, f.Add([asked(1), request(2, [1, 2], 20), asked(3, "(A")]), f.Add([asked(4, "B*C")]))
    assert child.until(f.Rejected).id == 3
    tokens, _ = child.collect(1, 2, 4)
    for number, pattern in ((1, "[A-C]{3}"), (4, "B*C")):
        said = tokens[number]
        assert said[-1] == END or len(said) == 30
        assert re.fullmatch(pattern, bytes(said[:-1]).decode()) or len(said) == 30
    # The process was idle, and is woken by the guide.
    child.send(f.Add([asked(5)]))
    assert len(child.collect(5)[0][5]) == 4
    child.send(f.Add([asked(6, generated=tokens[1][:1], seed=1)]))
    assert child.collect(6)[0][6] == tokens[1][1:]


def test_a_request_is_forgotten_before_it_has_its_guide_and_after(child):
    # So long a list that the next frames are there before it is read.
    slow = "|".join(f"A{number}" for number in range(8000))
    child.send(VOCABULARY, f.Add([asked(10, slow), asked(11, "A+")]), f.Abort([10, 11]), f.Add([asked(12)]))
    _, steps = child.collect(12)
    child.send(f.Add([asked(13)]))
    _, more = child.collect(13)
    assert {output.id for step in steps + more for output in step.outputs} <= {11, 12, 13}
    assert more[-1].running == 0
