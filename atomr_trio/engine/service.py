"""The loop of the device process: frames in, engine steps, frames out."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from time import monotonic

from attrs import define, field

from atomr_trio.core import CudaContextPoisoned, InferenceError, ModelLoadError, OutOfMemory, Unrecoverable

from .connection import Connection
from .device import first_device
from .engine import Engine, StepResult
from .fault_plan import PlannedFault
from .frames import (
    Abort,
    Aborted,
    Activate,
    Add,
    Configure,
    Fatal,
    Heartbeat,
    ParentFrame,
    Progress,
    ProtocolViolation,
    Ready,
    Rejected,
    SequenceRequest,
    Step,
    Vocabulary,
)
from .guiding import Guided, Guides
from .injection import Injector
from .memory import available_bytes
from .politeness import be_nice, be_nice_as_a_whole

__all__ = ["Service", "fatal_frame"]

_LACKING_S = 0.02
"""How often to look whether a program is there."""

_ROOM = 2 * 1024**3
"""Free memory, in bytes, with less of which a process stands by without a model: one that serves may want it."""

_QUIET_S = 0.1
"""How long to wait for work before something else is done."""

_LOOK_S = 0.5
"""How often to look whether loading has failed that nobody waits for."""


def _nothing() -> None:
    pass


def _has_room(free: int | None) -> bool:
    return free is None or free >= _ROOM


def _activation(frame: ParentFrame) -> Activate:
    if not isinstance(frame, Activate):
        raise ProtocolViolation("a process that stands by must be activated first")
    return frame


def fatal_frame(error: Exception) -> Fatal:
    """Say in a frame why the process ends; of an unknown error only its type, for its text has paths in it."""
    match error:
        case ModelLoadError():
            return Fatal("Unrecoverable", str(error))
        case Unrecoverable(message):
            return Fatal("Unrecoverable", message)
        case OutOfMemory(message):
            return Fatal("OutOfMemory", message)
        case CudaContextPoisoned(message):
            return Fatal("ContextPoisoned", message)
        case _:
            return Fatal("ContextPoisoned", f"the engine failed: {type(error).__name__}")


@define
class Service:
    """Serves one connection with one engine, until the process ends.

    Args:
        connection: with the server.
        configure: its first frame.
        on_load: called when the model is there, before anybody is told.
        pages_fd: a file for pages that outlive the process.
    """

    _connection: Connection
    _configure: Configure
    _on_load: Callable[[], None] = field(default=_nothing)
    _pages_fd: int | None = None
    _engine: Engine = field(init=False)
    _guides: Guides = field(init=False)
    _send_step: Callable[[Step], None] = field(init=False)
    _active: bool = field(init=False, default=False)
    _busy_since: float | None = field(init=False, default=None)
    _lacking: bool = field(init=False, default=False)
    _frames: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self._engine = Engine(self._configure.settings, pages_fd=self._pages_fd)
        self._send_step = self._connection.send

    def run(self) -> None:
        """Load, then step for as long as there is work, and wait for work. Returns only by an exception.

        A process that stands by is silent until it is told otherwise: nobody reads what it would say.

        Raises:
            InferenceError: the engine cannot go on; see ``fatal_frame``.
            ProtocolViolation: a frame that has no place here.
        """
        ready = self._load()
        self._on_load()
        self._guides = Guides(ready.vocab_size, self._configure.settings.max_waiting, self._connection.wake)
        self._connection.send(ready)
        while True:
            for frame in [*self._next_frames(), *self._connection.received()]:
                self._handle(frame)
            for guided in self._guides.ready():
                self._add_guided(guided)
            self._lacking = not self._engine.idle and not self._step()

    def _load(self) -> Ready:
        standby = self._configure.standby
        # The device is set up by this thread: its own threads are not to inherit the niceness of the one that loads.
        if standby == "loaded" and _has_room(available_bytes(first_device())):
            return self._load_standing_by()
        faults = self._configure.faults
        if standby != "none":
            faults = _activation(self._connection.receive()).faults
        self._activate(faults)
        return self._engine.load(self._report)

    def _load_standing_by(self) -> Ready:
        with ThreadPoolExecutor(1, "standby", initializer=be_nice) as pool:
            loading = pool.submit(self._engine.load, self._report, standby=True)
            preparing = pool.submit(self._prepare, loading)
            self._activate(_activation(self._receive_while(loading)).faults)
            ready = loading.result()
            preparing.result()
        self._engine.activate()
        return ready

    def _prepare(self, loading: "Future[Ready]") -> None:
        # Whoever is needed before this is done is needed now.
        if loading.exception() is None:
            self._engine.stand_by(lambda: not self._active)

    def _receive_while(self, loading: "Future[Ready]") -> ParentFrame:
        while not loading.done():
            for frame in self._connection.receive_within(_LOOK_S):
                return frame
        # Raises what loading has raised.
        loading.result()
        return self._connection.receive()

    def _activate(self, faults: list[PlannedFault]) -> None:
        self._active = True
        be_nice_as_a_whole(False)
        if faults:
            injector = Injector(faults)
            self._engine.on_dispatch = injector.on_dispatch
            self._send_step = partial(injector.send, self._connection)
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def _next_frames(self) -> list[ParentFrame]:
        if self._engine.idle:
            return self._wait_for_work()
        # While a program is compiled nothing can be computed, but aborts and other requests are not to wait for it.
        return self._connection.receive_within(_LACKING_S) if self._lacking else []

    def _wait_for_work(self) -> list[ParentFrame]:
        # Whoever gets its guide now is not to wait for anything else.
        while not self._guides.busy and self._engine.use_quiet():
            if frames := self._connection.receive_within(_QUIET_S):
                return frames
        return self._connection.receive_within(None)

    def _report(self, stage: str, done: int, total: int) -> None:
        if self._active:
            self._connection.send(Progress("weights" if stage == "weights" else "compile", done, total))

    def _handle(self, frame: ParentFrame) -> None:
        match frame:
            case Add(requests):
                for request in requests:
                    self._add(request)
            case Abort(ids):
                self._connection.send(Aborted(ids, [self._abort(number) for number in ids]))
            case Vocabulary():
                self._guides.learn(frame)
            case _:
                raise ProtocolViolation(f"{type(frame).__name__} comes once, before all others")

    def _abort(self, number: int) -> int:
        """Forget a request; return how many tokens are drawn for it all the same."""
        drawing = self._engine.drawing(number)
        _ = self._guides.forget(number) or self._engine.abort(number)
        return drawing

    def _add(self, request: SequenceRequest) -> None:
        try:
            if request.grammar is None:
                self._engine.add(request)
            else:
                self._guides.begin(request)
        except InferenceError as error:
            self._reject(request.id, error)

    def _add_guided(self, guided: Guided) -> None:
        request, guide = guided
        try:
            if isinstance(guide, InferenceError):
                raise guide
            self._engine.add(request, guide)
        except InferenceError as error:
            self._reject(request.id, error)

    def _reject(self, number: int, error: InferenceError) -> None:
        self._connection.send(Rejected(number, error.kind, str(error)))

    def _step(self) -> bool:
        """Step and tell; false if there was nothing that could be computed yet."""
        self._busy_since = monotonic()
        result = self._engine.step(wait_for_programs=False)
        self._busy_since = None
        if result.lacking and not result.outputs:
            return False
        for number, error in result.failed:
            self._reject(number, error)
        self._send_step(self._step_frame(result))
        return True

    def _step_frame(self, result: StepResult) -> Step:
        engine = self._engine
        self._frames += 1
        return Step(
            number=self._frames,
            outputs=result.outputs,
            running=engine.running,
            waiting=engine.waiting,
            tokens=result.tokens,
            free_pages=engine.free_pages,
            preemptions=engine.preemptions,
        )

    def _beat(self) -> None:
        pause = threading.Event()
        while not pause.wait(self._configure.heartbeat_s):
            engine, since = self._engine, self._busy_since
            busy_s = 0.0 if since is None else monotonic() - since
            self._connection.send(Heartbeat(engine.steps, engine.running, engine.waiting, busy_s, engine.compiling))
