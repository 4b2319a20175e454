"""The tokens of a prompt: told once, with the first of the answer, and spelled only for who reads them."""

from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import FinishReason, SamplingParams, TokenLogprob
from atomr_trio.engine import frames
from atomr_trio.runners._prompt_details import PromptDetails
from atomr_trio.runners._sequence import OpenSequence
from atomr_trio.text import TextCodec, Tokenizer

tops = st.lists(st.tuples(st.integers(0, 255), st.floats(-9, 0)), max_size=3)
places = st.lists(st.tuples(st.integers(0, 255), st.floats(-9, 0), tops), min_size=1, max_size=5)


class Sink:
    request_id = "r"

    def __init__(self):
        self.chunks = []

    def push(self, chunk):
        self.chunks.append(chunk)


@given(prompt=places, alone=st.booleans())
def test_they_come_with_the_first_token(prompt, alone):
    spelled = []

    def describe(id, logprob, top):
        spelled.append(id)
        others = tuple(TokenLogprob(str(other), b"", value, id=other) for other, value in top)
        return TokenLogprob(str(id), b"", logprob, others, id)

    codec = TextCodec(Tokenizer.bare(300), None, 64)
    ids, (_, *scores) = [id for id, _, _ in prompt], [logprob for _, logprob, _ in prompt]
    wanted = partial(PromptDetails.of, ids, describe)
    sequence = OpenSequence(Sink(), codec.output_decoder(SamplingParams()), len(prompt), describe_prompt=wanted)
    best = None if alone else [[], *(top for _, _, top in prompt[1:])]
    first = frames.SequenceOutput(1, [65], prompt_logprobs=[None, *scores], prompt_top_logprobs=best)
    for output in (first, frames.SequenceOutput(1, [66], finish_reason=FinishReason.LENGTH)):
        sequence.take(output)
    told, later = (chunk.prompt_details for chunk in sequence.out.chunks)
    assert (len(told), len(later), spelled) == (len(prompt), 0, [])
    assert [(token.id, token.logprob) for token in told] == list(zip(ids, [0.0, *scores], strict=True))
    assert [[(other.id, other.logprob) for other in token.top] for token in told] == (best or [[] for _ in ids])
    assert next(iter(told)) in told
    assert spelled
