"""What a worker remembers of the requests in flight, so that their answers can go on after the engine's death. Pure."""

from collections import deque

from attrs import define, evolve, field

from atomr_trio.core import ExecuteBatch

from .messages import Execute

__all__ = ["Journal", "resumed"]

_OWN, _FROM_OUTSIDE, _PROOF = 3, 2, 12
"""What deaths alone without a token weigh, and what convicts a request: four times that the engine died by itself, or
six times that it was killed, for whoever kills means the engine and not a request. Half as many would do if deaths were
rare. Those that come sooner than the next token meet the same request by chance more often than one would think. And
where three are survived in a minute, two more are found out in the same minute."""

_DOUBTS = 2
"""Deaths in a row without a token that make a request suspect: what kills from outside may strike twice, but to have
everybody go on one by one takes longer than to compute all of them again."""


def resumed(batch: ExecuteBatch, told: tuple[int, ...]) -> ExecuteBatch:
    """Return what is left of a request: ``told`` are the token ids that its client has."""
    return evolve(batch, generated=told) if told else batch


@define(eq=False)
class _Entry:
    """A request. ``fruitless``: how often in a row it died without a token; ``proof``: what those alone weigh."""

    execute: Execute
    submitted: bool = False
    had: int = 0
    fruitless: int = 0
    proof: int = 0

    @property
    def told(self) -> tuple[int, ...]:
        return tuple(self.execute.output.tokens.token_ids)

    @property
    def ended(self) -> bool:
        return self.execute.output.ended

    @property
    def suspect(self) -> bool:
        return self.fruitless >= _DOUBTS

    @property
    def on_trial(self) -> bool:
        return self.submitted and self.suspect

    @property
    def progressed(self) -> bool:
        return self.ended or len(self.told) > self.had

    def submit(self) -> Execute:
        self.submitted, self.had = True, len(self.told)
        return evolve(self.execute, batch=resumed(self.execute.batch, self.told))

    def die(self, weight: int) -> None:
        if self.progressed:
            self.acquit()
        else:
            self.proof += weight * self.on_trial
            self.fruitless += 1
        self.submitted = False

    def acquit(self) -> None:
        self.fruitless = self.proof = 0


@define
class Journal:
    """The requests of one worker, oldest first, and what its context is to be given of them.

    What a context had when it died goes on in the next one, from the tokens that were told. Who got no token in
    between, twice in a row, is under suspicion: such requests go on one by one, the next when the last got a token. If
    the context dies then, the one on trial waits until another death can be afforded. If that happens four times, it
    is guilty, and not run any more. (Kills from outside prove less: there it takes six.) So a request that kills the
    engine each time costs the others pauses, and not the engine.

    Its size is bounded by what the engine core admits: whoever adds a request drops it when it has ended.

    Args:
        max_deaths: how many deaths of the context are survived in a window.
        window: seconds.
    """

    _max_deaths: int
    _window: float
    _entries: dict[str, _Entry] = field(init=False, factory=dict[str, _Entry])
    _deaths: deque[float] = field(init=False, factory=deque[float])
    _open: bool = field(init=False, default=False)

    @property
    def in_flight(self) -> list[Execute]:
        """All requests that have not ended."""
        return [entry.execute for entry in self._entries.values() if not entry.ended]

    @property
    def on_trial(self) -> Execute | None:
        """The request under suspicion that runs now."""
        return next((one.execute for one in self._suspects if one.submitted), None)

    def add(self, execute: Execute, now: float) -> list[Execute]:
        """Record a request; return what the context is to be given now."""
        self._entries[execute.output.request_id] = _Entry(execute)
        return self.due(now)

    def opened(self, now: float) -> list[Execute]:
        """Note that there is a context; return what it is to be given."""
        self._open = True
        return self.due(now)

    def closed(self) -> None:
        """Note that there is none: what comes meanwhile waits here."""
        self._open = False

    def died(self, request_ids: tuple[str, ...], now: float, *, from_outside: bool = False) -> list[Execute]:
        """Note that the context died with these requests in it; return those that are guilty of it.

        Args:
            request_ids: who was in it.
            now: the time.
            from_outside: it was killed, perhaps for nothing that it did.
        """
        self.closed()
        self._deaths.append(now)
        died = [self._entries[key] for key in request_ids if key in self._entries]
        for entry in died:
            entry.die(_FROM_OUTSIDE if from_outside else _OWN)
        return self.drop(tuple(entry.execute.output.request_id for entry in died if entry.proof >= _PROOF))

    def drop(self, request_ids: tuple[str, ...]) -> list[Execute]:
        """Forget requests; return them."""
        return [self._entries.pop(key).execute for key in request_ids if key in self._entries]

    def acquit(self, execute: Execute, now: float) -> list[Execute]:
        """Note that the request on trial got a token, or ended; return what the context is to be given now."""
        entry = self._entries.get(execute.output.request_id)
        if entry is not None and entry.submitted and entry.progressed:
            entry.acquit()
        return self.due(now)

    def due(self, now: float) -> list[Execute]:
        """Return what the context is to be given now."""
        if not self._open or self.on_trial is not None:
            return []
        suspects = self._suspects
        if suspects and self.next_trial(now) <= now:
            # Who was on trial before comes last: the others are more likely to be innocent.
            return [min(suspects, key=lambda one: one.proof).submit()]
        return [one.submit() for one in self._entries.values() if not (one.submitted or one.suspect or one.ended)]

    def next_trial(self, now: float) -> float:
        """Return when another death can be afforded: now, or when the oldest one is forgotten."""
        while self._deaths and self._deaths[0] <= now - self._window:
            self._deaths.popleft()
        most = max(1, self._max_deaths)
        return now if len(self._deaths) < most else self._deaths[-most] + self._window

    @property
    def holds_suspects(self) -> bool:
        """There is a context, and there are requests that wait for their trial in it until it can be afforded."""
        return self._open and self.on_trial is None and bool(self._suspects)

    @property
    def _suspects(self) -> list[_Entry]:
        return [one for one in self._entries.values() if one.suspect and not one.ended]
