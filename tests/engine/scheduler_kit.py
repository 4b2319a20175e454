"""A device for scheduler tests that is all pages and no model: what a token is follows from what its pages hold."""

from collections import deque

from attrs import define, field, frozen

from atomr_trio.engine.blocks import BlockPool
from atomr_trio.engine.frames import SequenceRequest
from atomr_trio.engine.scheduler import Scheduler, SchedulerLimits, SentStep
from atomr_trio.engine.sequence import Sequence, finish_reason

EOS, STOP = 1, 2
VOCABULARY = 9


def request(number, prompt=3, max_tokens=4, generated=(), **changes):
    """A request; ``prompt`` is its tokens, or how many of them nobody else has."""
    own = [100 * number + 9] * prompt if isinstance(prompt, int) else list(prompt)
    return SequenceRequest(
        id=number,
        prompt_ids=own,
        max_tokens=max_tokens,
        generated=list(generated),
        eos_ids=[EOS],
        stop_ids=[STOP],
        **changes,
    )


def scheduler(pages=64, page_size=4, **limits):
    values = {"max_num_seqs": 4, "max_model_len": 32, "chunk": 8, "chunk_busy": 4, **limits}
    return Scheduler(SchedulerLimits(**values), BlockPool(pages, page_size))


def step(sched, token=9):
    plan = sched.schedule()
    return plan, sched.commit(sched.send(plan), {s.id: [token] * plan.steps for s in plan.drawing})


def ids(sequences):
    return [s.id for s in sequences]


def entry(salt, tokens):
    """What the slot of the last of ``tokens`` holds: a value that depends on all of them, as keys and values do."""
    return hash((salt, *tokens))


def next_token(entries):
    """The next token, from all slots of a sequence."""
    return hash(tuple(entries)) % VOCABULARY


def expected(wanted, max_model_len):
    """The answer to a request that has a machine to itself, computed from its tokens alone."""
    sequence = Sequence.of(wanted, 0)
    while sequence.draws and finish_reason(sequence, max_model_len) is None:
        slots = [entry(wanted.salt, sequence.tokens[:end]) for end in range(1, len(sequence.tokens) + 1)]
        sequence.tokens.append(next_token(slots))
    return sequence.tokens


@frozen
class Work:
    """One row as it was sent: everything is copied, as it is to a real device."""

    sequence: Sequence
    life: int
    pages: tuple[int, ...]
    known: tuple[int, ...]
    start: int
    end: int
    draws: int

    @property
    def key(self):
        return self.sequence.id, self.life


@define
class Device:
    """Executes steps in the order in which they were sent, some time after that."""

    page_size: int
    slots: dict[tuple[int, int], int] = field(factory=dict)
    on_it: deque[tuple[SentStep, list[Work]]] = field(factory=deque)
    results: dict[int, dict[int, list[int]]] = field(factory=dict)
    drawn: dict[tuple[int, int], dict[int, int]] = field(factory=dict)
    computed: dict[tuple[int, int], set[int]] = field(factory=dict)
    pooled: dict[tuple[int, int], list[int]] = field(factory=dict)

    def send(self, plan, sent):
        rows = {s.id: (len(s.tokens) + s.pending - 1 - plan.steps, plan.steps) for s in plan.decodes}
        rows |= {chunk.sequence.id: (chunk.start, chunk.length) for chunk in plan.chunks}
        work = []
        for share in sent.shares:
            sequence, (start, count) = share.sequence, rows[share.sequence.id]
            assert start + count == share.computed
            pages, known = tuple(sequence.pages), tuple(sequence.tokens)
            work.append(Work(sequence, share.life, pages, known, start, start + count, share.draws))
        self.on_it.append((sent, work))

    def written_by_others(self, sequence):
        """Pages that steps on the device may still touch, but not on behalf of this sequence as it is now."""
        return {
            page
            for _, work in self.on_it
            for row in work
            if row.sequence is not sequence or row.life != sequence.life
            for page in row.pages[row.start // self.page_size :]
        }

    def execute(self):
        """Execute the oldest step that was not executed yet."""
        for sent, work in self.on_it:
            if sent.number not in self.results:
                self.results[sent.number] = dict(filter(None, map(self._run, work)))
                return

    def take(self):
        """Return the tokens of the oldest step, executing it if need be."""
        sent, _ = self.on_it[0]
        if sent.number not in self.results:
            self.execute()
        self.on_it.popleft()
        return self.results.pop(sent.number)

    def lose_oldest(self):
        """The oldest step failed and wrote nothing."""
        sent, _ = self.on_it.popleft()
        self.results.pop(sent.number, None)

    def lose_everything(self):
        self.slots.clear()
        self.on_it.clear()
        self.results.clear()

    def _run(self, row):
        tokens = self._tokens(row)
        if tokens is None:  # it goes on after a step that failed: nobody reads what it writes
            return None
        salt = row.sequence.request.salt
        drawn = []
        for position in range(row.start, row.end):
            self.slots[self._slot(row, position)] = entry(salt, tokens[: position + 1])
            if position >= row.end - row.draws:
                drawn.append(next_token(self.slots.get(self._slot(row, earlier)) for earlier in range(position + 1)))
                self.drawn.setdefault(row.key, {})[position + 1] = drawn[-1]
                tokens[position + 1 :] = drawn[-1:]
        if not row.sequence.draws and row.end == len(tokens):
            self.pooled[row.key] = [self.slots.get(self._slot(row, position)) for position in range(row.end)]
        self.computed.setdefault(row.key, set()).update(range(row.start, row.end))
        return (row.sequence.id, drawn) if drawn else None

    def _tokens(self, row):
        """The tokens that a row begins with: what is known, and what steps before it drew."""
        tokens = list(row.known)
        while len(tokens) < row.end + 1 - max(1, row.draws):
            token = self.drawn.get(row.key, {}).get(len(tokens))
            if token is None:
                return None
            tokens.append(token)
        return tokens

    def _slot(self, row, position):
        return row.pages[position // self.page_size], position % self.page_size
