"""Where mail goes: each message is handled, lost in a handler's hands, a dead letter, or still queued; one of them.

The first half is an exact model of one actor's mail, checked at rest after every operation. The second half lets
senders, crashes and stops run against each other and checks the books when all is over.
"""

import itertools
from collections import Counter

import trio
from attrs import define, field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.actor import (
    Actor,
    ActorFailed,
    ActorStopped,
    ActorSystem,
    AskTimeout,
    DeadLetter,
    Directive,
    MailboxFull,
    OverflowStrategy,
    Props,
    Request,
    StashFull,
    one_for_one,
)

from .kit import run, settle


class Resumable(Exception):
    pass


class Restartable(Exception):
    pass


class Fatal(Exception):
    pass


DIRECTIVES = {Resumable: Directive.RESUME, Restartable: Directive.RESTART, Fatal: Directive.STOP}
ERRORS = {"resume": Resumable, "restart": Restartable, "fatal": Fatal}
STASH, SHUTDOWN = 2, 5


def supervised():
    return ActorSystem.create("t", supervisor_strategy=one_for_one(DIRECTIVES, max_restarts=10_000))


@frozen
class Mail(Request[int]):
    number: int
    action: str
    sender: int = 0


@define
class Sink(Actor):
    """Does what the mail says; ``book`` outlives its instances."""

    book: "Book"

    async def handle(self, mail, ctx):
        book = self.book
        book.deepest = max(book.deepest, ctx.self_ref.queued)
        book.hand = mail.number
        stashes = mail.action.startswith("stash") and mail.number not in book.stashed
        try:
            if mail.action == "hold" or (mail.action == "stash, hold" and not stashes):
                book.leave = trio.Event()
                await book.leave.wait()
                if book.blow is not None:
                    raise ERRORS[book.blow]
            elif mail.action == "nap":
                await trio.sleep(1)
            elif mail.action == "yield":
                await trio.lowlevel.checkpoint()
            elif mail.action in ERRORS:
                raise ERRORS[mail.action]
            elif stashes:
                ctx.stash()
                book.stashed.append(mail.number)
            elif mail.action == "unstash":
                ctx.unstash()
            elif mail.action == "unstash one":
                ctx.unstash(1)
            elif mail.action == "quit":
                ctx.stop()
        except BaseException:
            book.lost.append(mail.number)
            raise
        finally:
            book.hand = None
        if not stashes:
            book.handled.append(mail.number)
        return mail.number


@define
class Book:
    """What really happened."""

    handled: list = field(factory=list)
    lost: list = field(factory=list)
    stashed: list = field(factory=list)
    letters: list = field(factory=list)
    outcomes: dict = field(factory=dict)
    deepest: int = 0
    hand: int | None = None
    leave: trio.Event | None = None
    blow: str | None = None

    async def outcome(self, number, ask):
        """Keep how an ask ended; a cancellation is kept and goes on."""
        self.outcomes[number] = "cancelled"
        try:
            assert await ask() == number
            self.outcomes[number] = "value"
        except MailboxFull:
            self.outcomes[number] = "full"
        except ActorStopped:
            self.outcomes[number] = "stopped"
        except ActorFailed as failed:
            assert type(failed.__cause__) in (*DIRECTIVES, StashFull)
            self.outcomes[number] = "failed"
        except AskTimeout:
            self.outcomes[number] = "timeout"


@define
class Model:
    """One actor's mail over plain lists."""

    capacity: int
    overflow: OverflowStrategy
    queue: list = field(factory=list)
    front: list = field(factory=list)
    stash: list = field(factory=list)
    parked: list = field(factory=list)
    hand: Mail | None = None
    alive: bool = True
    stopping: bool = False
    asks: set = field(factory=set)
    abandoned: set = field(factory=set)
    once_stashed: set = field(factory=set)
    handled: list = field(factory=list)
    lost: list = field(factory=list)
    dead: list = field(factory=list)
    outcomes: dict = field(factory=dict)

    def settle_ask(self, mail, outcome):
        if mail.number in self.asks and mail.number not in self.abandoned:
            self.outcomes[mail.number] = outcome

    def lose(self, mail, reason, outcome="stopped"):
        self.dead.append((mail.number, reason))
        self.settle_ask(mail, outcome)

    def tell(self, mail):
        """Return whether the mailbox took it, or made a dead letter of it; false if the sender was refused."""
        if not self.alive:
            self.lose(mail, "stopped")
        elif len(self.queue) < self.capacity:
            self.queue.append(mail)
        elif self.overflow is OverflowStrategy.FAIL:
            self.settle_ask(mail, "full")
            return False
        elif self.overflow is OverflowStrategy.DROP_NEW or self.parked:
            self.lose(mail, "full", "full")
        else:
            self.lose(self.queue.pop(0), "head", "full")
            self.queue.append(mail)
        self.pump()
        return True

    def send(self, mail):
        if self.alive and len(self.queue) >= self.capacity:
            self.parked.append(mail)
        else:
            self.tell(mail)

    def ask(self, mail):
        self.asks.add(mail.number)
        return self.tell(mail)

    def cancel(self, number):
        """Return whether there was something to cancel."""
        for mail in self.parked:
            if mail.number == number:
                self.parked.remove(mail)
                return True
        if number in self.asks and number not in self.outcomes:
            self.outcomes[number] = "cancelled"
            self.abandoned.add(number)
            return True
        return False

    def pump(self):
        while self.alive and self.hand is None and not self.stopping and (self.front or self.queue):
            mail = self.front.pop(0) if self.front else self.queue.pop(0)
            while self.parked and len(self.queue) < self.capacity:
                self.queue.append(self.parked.pop(0))
            if mail.number in self.abandoned:
                self.lose(mail, "nobody")
            else:
                self.handle(mail)

    def handle(self, mail):
        match mail.action:
            case "hold":
                self.hand = mail
                return
            case "stash, hold" if mail.number in self.once_stashed:
                self.hand = mail
                return
            case "resume" | "restart" | "fatal":
                self.fail(mail, mail.action)
                return
            case "stash" | "stash, hold" if mail.number not in self.once_stashed:
                if len(self.stash) == STASH:
                    self.fail(mail, "restart")
                else:
                    self.once_stashed.add(mail.number)
                    self.stash.append(mail)
                return
            case "unstash":
                self.front, self.stash = self.stash + self.front, []
            case "unstash one":
                self.front, self.stash = self.stash[:1] + self.front, self.stash[1:]
        self.handled.append(mail.number)
        self.settle_ask(mail, "value")
        if mail.action == "quit":
            self.end()

    def fail(self, mail, directive):
        self.lost.append(mail.number)
        self.settle_ask(mail, "failed")
        if directive == "fatal" or self.stopping:
            self.end()
        elif directive == "restart":
            self.drop_stash()

    def drop_stash(self):
        for mail in self.stash:
            self.lose(mail, "stash")
        self.stash = []

    def end(self):
        self.alive = False
        self.drop_stash()
        for mail in self.front + self.queue + self.parked:
            self.lose(mail, "stopped")
        self.front, self.queue, self.parked = [], [], []

    def stop(self):
        self.stopping = True
        if self.hand is None and self.alive:
            self.end()

    def release(self, blow):
        if self.hand is None:
            return
        mail, self.hand = self.hand, None
        if blow is not None:
            self.fail(mail, blow)
        else:
            self.handled.append(mail.number)
            self.settle_ask(mail, "value")
            if self.stopping:
                self.end()
        self.pump()

    def expire(self):
        if self.stopping and self.hand is not None:
            mail, self.hand = self.hand, None
            self.lost.append(mail.number)
            self.settle_ask(mail, "stopped")
            self.end()


ACTIONS = st.sampled_from(
    [
        "note",
        "note",
        "hold",
        "hold",
        "hold",
        "resume",
        "restart",
        "fatal",
        "stash",
        "stash, hold",
        "unstash",
        "unstash one",
        "quit",
    ]
)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["tell", "tell", "send", "ask"]), ACTIONS),
        st.tuples(st.sampled_from(["tell", "tell", "send", "ask"]), st.just("note")),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("release"), st.sampled_from([None, None, None, "resume", "restart", "fatal"])),
        st.tuples(st.just("stop"), st.none()),
        st.tuples(st.just("expire"), st.none()),
    ),
    max_size=30,
)
SHORT_REASON = {
    "stopped": "is stopped",
    "full": "is full",
    "head": "newer mail",
    "stash": "stashed",
    "nobody": "nobody waits",
}


def compare(book, model, ref, system, sent, senders):
    assert book.handled == model.handled
    assert book.lost == model.lost
    assert ref.is_terminated is not model.alive
    assert ref.queued == len(model.front) + len(model.queue)
    letters = [(letter.message.number, letter.reason) for letter in book.letters]
    expected = Counter((number, reason) for number, reason in model.dead)
    assert Counter((n, key) for n, why in letters for key, text in SHORT_REASON.items() if text in why) == expected
    assert {letter.path for letter in book.letters} <= {ref.path}
    assert system.dead_letters.count == len(book.letters)
    assert list(system.dead_letters.recent) == book.letters[-100:]
    assert {n: how for n, how in book.outcomes.items() if how != "cancelled" or n in model.abandoned} == model.outcomes
    assert sorted(senders) == sorted(mail.number for mail in model.parked)
    at_rest = [mail.number for mail in model.front + model.queue + model.stash]
    in_hand = [] if book.hand is None else [book.hand]
    assert Counter(sent) == Counter(book.handled + book.lost + [n for n, _ in letters] + at_rest + in_hand)


@settings(max_examples=200)
@given(
    operations=OPERATIONS,
    capacity=st.integers(1, 4),
    overflow=st.sampled_from(OverflowStrategy),
    _seed=st.random_module(),
)
def test_every_history_of_a_mailbox_is_the_models(operations, capacity, overflow, _seed):
    book, model = Book(), Model(capacity, overflow)

    async def scenario():
        sent, senders, scopes = [], set(), {}

        async def sender(ref, mail):
            with trio.CancelScope() as scopes[mail.number]:
                senders.add(mail.number)
                try:
                    await ref.send(mail)
                    sent.append(mail.number)
                finally:
                    senders.discard(mail.number)

        async def asker(ref, mail):
            with trio.CancelScope() as scopes[mail.number]:
                await book.outcome(mail.number, lambda: ref.ask(mail, timeout=100_000))

        async with supervised() as system, trio.open_nursery() as nursery:
            system.events.subscribe(DeadLetter, book.letters.append)
            props = Props(
                factory=lambda: Sink(book),
                capacity=capacity,
                overflow=overflow,
                stash_capacity=STASH,
                shutdown=SHUTDOWN,
            )
            ref = await system.actor_of(props, "sink")
            for number, (what, how) in enumerate(operations):
                mail = Mail(number, how)
                match what:
                    case "tell":
                        taken = model.tell(mail)
                        try:
                            ref.tell(mail)
                            assert taken
                            sent.append(number)
                        except MailboxFull as full:
                            assert not taken
                            assert (full.path, full.capacity) == ("/sink", capacity)
                    case "send":
                        model.send(mail)
                        nursery.start_soon(sender, ref, mail)
                    case "ask":
                        if model.ask(mail):
                            sent.append(number)
                        nursery.start_soon(asker, ref, mail)
                    case "cancel":
                        if model.cancel(how):
                            scopes[how].cancel(reason="test")
                    case "release":
                        model.release(how)
                        if book.leave is not None:
                            book.blow = how
                            book.leave.set()
                    case "stop":
                        model.stop()
                        ref.stop()
                    case "expire":
                        model.expire()
                        await trio.sleep(SHUTDOWN + 1)
                await settle()
                book.blow = None
                compare(book, model, ref, system, sent, senders)
            ref.stop()
            await ref.wait_terminated()
            model.stop()
            model.expire()
            await settle()
            compare(book, model, ref, system, sent, senders)
            assert not senders

    run(scenario)


STEP = st.tuples(
    st.sampled_from(["tell", "send", "send", "impatient send", "ask", "short ask"]),
    st.sampled_from(["note", "note", "note", "yield", "nap", "resume", "restart", "stash", "unstash"]),
    st.integers(0, 2),
)


@settings(max_examples=100)
@given(
    plans=st.lists(st.lists(STEP, max_size=12), min_size=1, max_size=4),
    capacity=st.integers(1, 8),
    overflow=st.sampled_from(OverflowStrategy),
    stops_at=st.none() | st.integers(0, 12),
    _seed=st.random_module(),
)
def test_the_books_balance_whatever_runs_against_what(plans, capacity, overflow, stops_at, _seed):
    book, sent = Book(), []

    async def deliver(ref, how, mail):
        try:
            match how:
                case "tell":
                    ref.tell(mail)
                case "send":
                    await ref.send(mail)
                case "impatient send":
                    with trio.move_on_after(1.5) as scope:
                        await ref.send(mail)
                    if scope.cancelled_caught:
                        return
                case _:
                    with trio.move_on_after(2.5 if how == "short ask" else 1000):
                        await book.outcome(mail.number, lambda: ref.ask(mail, timeout=500))
                    if book.outcomes[mail.number] == "full" and overflow is OverflowStrategy.FAIL:
                        return
        except MailboxFull:
            assert overflow is OverflowStrategy.FAIL
            return
        sent.append(mail.number)

    async def sender(ref, me, plan):
        for i, (how, action, pause) in enumerate(plan):
            await deliver(ref, how, Mail(me * 1000 + i, action, me))
            for _ in range(pause):
                await trio.lowlevel.checkpoint()

    async def scenario():
        async with supervised() as system:
            system.events.subscribe(DeadLetter, book.letters.append)
            props = Props(factory=lambda: Sink(book), capacity=capacity, overflow=overflow, stash_capacity=STASH)
            ref = await system.actor_of(props, "sink")
            async with trio.open_nursery() as nursery:
                for me, plan in enumerate(plans):
                    nursery.start_soon(sender, ref, me, plan)
                if stops_at is not None:
                    await trio.sleep(stops_at / 2)
                    ref.stop()
            ref.stop()
            await ref.wait_terminated()
        assert system.dead_letters.count == len(book.letters)
        dead = [letter.message.number for letter in book.letters]
        assert Counter(sent) == Counter(book.handled + book.lost + dead)
        assert book.deepest <= capacity + STASH
        for me in range(len(plans)):
            mine = [n for n in book.handled if n // 1000 == me and n not in book.stashed]
            assert mine == sorted(mine)
        asks = {me * 1000 + i for me, plan in enumerate(plans) for i, (how, *_) in enumerate(plan) if "ask" in how}
        assert set(book.outcomes) == asks
        assert {n for n, how in book.outcomes.items() if how == "value"} <= set(book.handled)
        assert {n for n, how in book.outcomes.items() if how == "failed"} <= set(book.lost)
        assert {n for n, how in book.outcomes.items() if how == "timeout"} <= set(book.stashed)

    run(scenario)


@settings(max_examples=30)
@given(
    count=st.integers(1, 100) | st.integers(700, 1000),
    stops_at=st.none() | st.integers(0, 999),
    _seed=st.random_module(),
)
def test_a_busy_actor_lets_others_run_and_obeys_a_stop_after_the_message_in_hand(count, stops_at, _seed):
    """Its handler never waits, and yet nobody starves; a stop leaves what is queued to the dead letters."""
    handled, seen = [], []

    class Busy(Actor):
        def handle(self, message, ctx):
            handled.append(message)
            if message[1]:
                ctx.self_ref.stop()

    async def observer():
        while True:
            seen.append(len(handled))
            await trio.lowlevel.checkpoint()

    async def scenario():
        async with ActorSystem.create("t") as system, trio.open_nursery() as nursery:
            ref = await system.actor_of(Props(factory=Busy), "busy")
            nursery.start_soon(observer)
            while not seen:
                await trio.lowlevel.checkpoint()
            last = count if stops_at is None or stops_at >= count else stops_at
            for i in range(count + 1):
                ref.tell((i, i == last))
            await ref.wait_terminated()
            nursery.cancel_scope.cancel(reason="done")
            assert [number for number, _ in handled] == list(range(last + 1))
            assert system.dead_letters.count == count - last
        assert max(b - a for a, b in itertools.pairwise([*seen, last + 1])) <= 2 * 256

    run(scenario)
