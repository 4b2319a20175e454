"""Tokens that are reasoning are counted over the life of an answer, in however many processes it is computed."""

from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import AnswerForm, FinishReason, SamplingParams
from atomr_trio.engine import frames
from atomr_trio.runners._sequence import OpenSequence
from atomr_trio.text import AnswerParser, TextCodec, Tokenizer

FORM = AnswerForm(thoughts=("<think>", "</think>"), reader=AnswerParser)
TEXT = b"<think>so</think>\n\nRain."


class Sink:
    def __init__(self):
        self.chunks = []

    def push(self, chunk):
        self.chunks.append(chunk)


def sequence():
    codec = TextCodec(Tokenizer.bare(300), None, 64)
    return OpenSequence(Sink(), codec.output_decoder(SamplingParams(), FORM), prompt_tokens=3)


@given(told=st.integers(0, len(TEXT)), cut=st.integers(0, len(TEXT)))
def test_what_an_earlier_process_thought_counts(told, cut):
    ids, computing = list(TEXT), sequence()
    computing.catch_up(ids[:told])
    for portion, reason in ((ids[told : max(told, cut)], None), (ids[max(told, cut) :], FinishReason.STOP)):
        computing.take(frames.SequenceOutput(id=1, token_ids=portion, finish_reason=reason))
    usage = computing.out.chunks[-1].usage
    assert (usage.input_tokens, usage.output_tokens) == (3, len(TEXT))
    assert usage.reasoning_tokens == len(b"<think>so</think>")
    assert "".join(chunk.text_delta for chunk in computing.out.chunks) == TEXT[told:].decode()
