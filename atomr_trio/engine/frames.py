"""The protocol between a server and its device process: frames, their encoding, and an incremental decoder.

A frame is ``u32 length (little endian) | msgpack`` and there is one frame per engine step, not one per token. This
module does no I/O and imports neither jax nor numpy: the server's side needs nothing but this.
"""

import struct
from typing import Any, Generic, Literal, TypeVar

import msgspec
from attrs import define, field

from atomr_trio.core import FinishReason, Grammar

from .fault_plan import PlannedFault
from .settings import EngineSettings, Pooling

__all__ = [
    "MAX_FRAME_BYTES",
    "Abort",
    "Aborted",
    "Activate",
    "Add",
    "ChildFrame",
    "Configure",
    "Fatal",
    "FatalKind",
    "Frame",
    "FrameDecoder",
    "Heartbeat",
    "ParentFrame",
    "Ping",
    "Pong",
    "Progress",
    "ProtocolViolation",
    "Ready",
    "Rejected",
    "SequenceOutput",
    "SequenceRequest",
    "Shutdown",
    "Standby",
    "Step",
    "Vocabulary",
    "child_frame_decoder",
    "encode",
    "parent_frame_decoder",
]

MAX_FRAME_BYTES = 32 * 1024 * 1024
"""The longest payload either side sends or accepts; a prompt of a million tokens needs five of these."""

FatalKind = Literal["ContextPoisoned", "OutOfMemory", "Unrecoverable"]
"""How the supervisor of the device process tells one end from another: restart, resume, or stop."""

Standby = Literal["none", "imported", "loaded"]
"""How far a process goes before it waits for ``Activate``: not at all, without touching the device, or all the way."""

_LENGTH = struct.Struct("<I")


@define
class ProtocolViolation(Exception):
    """The other side sent something that is not a frame of this protocol; the connection is of no more use."""

    message: str

    def __str__(self) -> str:
        return f"protocol violation: {self.message}"


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """Base of all frames: a msgpack array whose first item names the frame."""


class SequenceRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One sequence to generate.

    Args:
        id: the server's number for it, unique among the open ones.
        prompt_ids: the prompt, at least one token.
        max_tokens: how many tokens to generate in all, those in ``generated`` included.
        generated: tokens that were already sent to the client by an earlier process: generation goes on after them.
        temperature: 0 is greedy.
        top_k: 0 keeps all tokens.
        top_p: nucleus mass in (0, 1].
        min_p: share of the best token's probability, in [0, 1].
        seed: token ``p`` of a sequence is drawn with ``fold_in(seed, p)``; the low 64 bits count.
        eos_ids: the model's own end tokens.
        stop_ids: further tokens that end the sequence.
        ignore_eos: do not end at ``eos_ids``.
        min_tokens: neither end token is drawn before this many tokens.
        logprobs: return the log probability of each token.
        prompt_logprobs: return the log probability of each prompt token.
        top_logprobs: return so many of the most likely tokens with each token, 20 at most; takes ``logprobs``.
        repetition_penalty: positive logits of tokens of prompt and answer are divided by it, others multiplied; 1: off.
        presence_penalty: taken from the logits of tokens of the answer.
        frequency_penalty: the same, times how often the answer has the token.
        logit_bias: tokens, and what is added to their logits.
        priority: lower runs sooner; 0 is usual.
        salt: only requests of the same salt find each other's prompts in the cache.
        grammar: what the answer must look like; a ``Vocabulary`` comes before it.
        prompt_top_logprobs: return so many of the most likely tokens with each prompt token; takes ``prompt_logprobs``.
        pooling: draw no tokens; the answer is an embedding of the prompt, made in this way.
    """

    id: int
    prompt_ids: list[int]
    max_tokens: int
    generated: list[int] = []
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    eos_ids: list[int] = []
    stop_ids: list[int] = []
    ignore_eos: bool = False
    min_tokens: int = 0
    logprobs: bool = False
    prompt_logprobs: bool = False
    top_logprobs: int = 0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: list[tuple[int, float]] = []
    priority: int = 0
    salt: str = ""
    grammar: Grammar | None = None
    prompt_top_logprobs: int = 0
    pooling: Pooling | None = None


class SequenceOutput(msgspec.Struct, frozen=True, array_like=True):
    """What one step added to one sequence.

    Args:
        id: the request's number.
        token_ids: the new tokens; the one that ended the sequence is the last of them.
        logprobs: the log probability (raw distribution, natural log) of each new token, if asked for.
        finish_reason: set on the last output of a sequence and only there.
        cached_tokens: how many prompt tokens were found in the cache; the same in all outputs of a sequence. 0 if it
            began with ``generated`` tokens.
        prompt_logprobs: with the first token, if asked for: one value per prompt token, ``None`` for the first.
        top_logprobs: for each new token the most likely tokens in its place, best first, if asked for.
        prompt_top_logprobs: the same for each prompt token, with the first token of the answer; none for the first one.
        embedding: of the prompt, of length 1, if asked for: float32, little-endian.
    """

    id: int
    token_ids: list[int]
    logprobs: list[float] | None = None
    finish_reason: FinishReason | None = None
    cached_tokens: int = 0
    prompt_logprobs: list[float | None] | None = None
    top_logprobs: list[list[tuple[int, float]]] | None = None
    prompt_top_logprobs: list[list[tuple[int, float]]] | None = None
    embedding: bytes | None = None


# --- server to device process


class Configure(Frame, frozen=True, array_like=True, tag=True):
    """The first frame: what to load and how to run it.

    Args:
        settings: of the engine.
        heartbeat_s: seconds between heartbeats.
        standby: say nothing and serve nobody before ``Activate``.
        faults: what shall go wrong, for tests.
    """

    settings: EngineSettings
    heartbeat_s: float = 1.0
    standby: Standby = "none"
    faults: list[PlannedFault] = []


class Activate(Frame, frozen=True, array_like=True, tag=True):
    """Stand by no longer: the process before this one is gone. ``faults``: what shall go wrong, for tests."""

    faults: list[PlannedFault] = []


class Vocabulary(Frame, frozen=True, array_like=True, tag=True):
    """What the model's tokens stand for, for requests with a grammar; sent before the first of them.

    Args:
        tokens: the bytes of each token; those of its name for a control token.
        special_ids: control tokens: they have no text.
        end_ids: tokens that end an answer.
    """

    tokens: list[bytes]
    special_ids: list[int]
    end_ids: list[int]


class Add(Frame, frozen=True, array_like=True, tag=True):
    """Start these sequences."""

    requests: list[SequenceRequest]


class Abort(Frame, frozen=True, array_like=True, tag=True):
    """Forget these sequences; nothing more is sent for them, except for what is already on its way, and ``Aborted``."""

    ids: list[int]


class Ping(Frame, frozen=True, array_like=True, tag=True):
    """Answered with ``Pong`` of the same number by the process, even while a step is under way."""

    number: int


class Shutdown(Frame, frozen=True, array_like=True, tag=True):
    """Leave with status 0, now."""


# --- device process to server


class Progress(Frame, frozen=True, array_like=True, tag=True):
    """How far loading has come, in units of the stage (bytes of weights, programs compiled)."""

    stage: Literal["weights", "compile"]
    done: int
    total: int


class Ready(Frame, frozen=True, array_like=True, tag=True):
    """Loaded and warm. Lengths are in tokens, times in seconds.

    ``dtype`` is the one in use, also where ``auto`` was asked for; ``num_pages`` does not count the page for padding.
    """

    max_model_len: int
    max_num_seqs: int
    vocab_size: int
    dtype: str
    backend: str
    device: str
    num_pages: int
    page_size: int
    load_s: float
    warmup_s: float


class Step(Frame, frozen=True, array_like=True, tag=True):
    """One engine step: what it added to whom, and how the engine stands after it.

    ``number`` counts these frames, from 1 on: one that comes twice is known by it. ``tokens`` counts the rows that were
    computed, prompt tokens included; ``preemptions`` counts since the start.
    """

    number: int
    outputs: list[SequenceOutput]
    running: int
    waiting: int
    tokens: int
    free_pages: int
    preemptions: int


class Aborted(Frame, frozen=True, array_like=True, tag=True):
    """These sequences are forgotten: nothing comes after it for them.

    ``unsent`` is the number of tokens that the device still draws for each of them, in steps that had begun: they are
    thrown away.
    """

    ids: list[int]
    unsent: list[int]


class Rejected(Frame, frozen=True, array_like=True, tag=True):
    """One request ends alone; ``kind`` is the tag of an error of ``atomr_trio.core``, the message is for clients."""

    id: int
    kind: str
    message: str


class Heartbeat(Frame, frozen=True, array_like=True, tag=True):
    """The process lives. ``busy_s``: how long the step under way has taken so far, 0 between steps.

    ``compiling`` says that the step waits for a program to be compiled: slow, but no hang.
    """

    step: int
    running: int
    waiting: int
    busy_s: float
    compiling: bool


class Pong(Frame, frozen=True, array_like=True, tag=True):
    """The answer to ``Ping``."""

    number: int


class Fatal(Frame, frozen=True, array_like=True, tag=True):
    """The last frame: why the process ends. The message is fit for clients."""

    kind: FatalKind
    message: str


ParentFrame = Configure | Activate | Vocabulary | Add | Abort | Ping | Shutdown
ChildFrame = Progress | Ready | Step | Aborted | Rejected | Heartbeat | Pong | Fatal

_FrameT = TypeVar("_FrameT", bound=Frame)
_encoder = msgspec.msgpack.Encoder()


def encode(frame: Frame) -> bytes:
    """Return the frame's bytes, length included.

    Raises:
        ProtocolViolation: it is longer than ``MAX_FRAME_BYTES``.
    """
    payload = _encoder.encode(frame)
    if len(payload) > MAX_FRAME_BYTES:
        raise ProtocolViolation(f"a frame of {len(payload)} bytes is longer than {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(payload)) + payload


@define
class FrameDecoder(Generic[_FrameT]):
    """Turns a byte stream, cut anywhere, into frames. Does no I/O. After a violation it stays broken."""

    _decoder: "msgspec.msgpack.Decoder[_FrameT]"
    _buffer: bytearray = field(factory=bytearray, init=False)
    _broken: ProtocolViolation | None = field(default=None, init=False)

    @property
    def buffered(self) -> int:
        """Bytes of a frame that is not complete yet; not 0 at the end of the stream means that it was torn."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[_FrameT]:
        """Take bytes; return the frames that are complete now.

        Raises:
            ProtocolViolation: the stream is not one of this protocol. Frames before the bad one are lost with it.
        """
        if self._broken is not None:
            raise self._broken
        self._buffer += data
        try:
            return self._complete_frames()
        except ProtocolViolation as violation:
            self._broken = violation
            self._buffer.clear()
            raise

    def _complete_frames(self) -> list[_FrameT]:
        frames: list[_FrameT] = []
        start = 0
        while (end := self._end_of_frame(start)) is not None:
            frames.append(self._decode(bytes(self._buffer[start + _LENGTH.size : end])))
            start = end
        del self._buffer[:start]
        return frames

    def _end_of_frame(self, start: int) -> int | None:
        if len(self._buffer) - start < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer, start)
        # Judged before the payload is there: a bad length must not make us wait for (and buffer) gigabytes.
        if not 0 < length <= MAX_FRAME_BYTES:
            raise ProtocolViolation(f"a frame of {length} bytes is announced")
        end = start + _LENGTH.size + length
        return end if len(self._buffer) >= end else None

    def _decode(self, payload: bytes) -> _FrameT:
        try:
            return self._decoder.decode(payload)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise ProtocolViolation(str(error)) from None


def parent_frame_decoder() -> FrameDecoder[Any]:
    """Return a decoder of what a server sends: ``Configure | Activate | Vocabulary | Add | …``."""
    return FrameDecoder(msgspec.msgpack.Decoder(ParentFrame))


def child_frame_decoder() -> FrameDecoder[Any]:
    """Return a decoder of what a device process sends: ``Progress | Ready | Step | Rejected | …``."""
    return FrameDecoder(msgspec.msgpack.Decoder(ChildFrame))
