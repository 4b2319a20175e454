"""The figures of the supervision guide, drawn from what the core does: ``python -m tests.figures`` draws them anew.

Every bar and mark comes from a run under a virtual clock, so a figure that says something else than the code differs
from its file, and a test says so.
"""

from collections.abc import Callable, Iterator
from functools import partial
from html import escape
from pathlib import Path

import trio
from attrs import define, field, frozen
from trio.testing import MockClock

from atomr_trio.actor import (
    Actor,
    ActorSystem,
    Props,
    RestartWindow,
    SupervisorStrategy,
    dynamic_pool,
    one_for_all,
    one_for_one,
    rest_for_one,
)

FIGURES = Path(__file__).parents[1] / "docs" / "figures"

STARTING, RUNNING, CLOSING, WAITING = "starting", "running", "closing", "waiting"


@frozen
class Span:
    """What one actor did from ``begin`` to ``end``, in seconds; ``life`` is its incarnation."""

    actor: str
    phase: str
    life: int
    begin: float
    end: float


@define
class Trace:
    """Takes down who turned to which phase when."""

    spans: list[Span] = field(factory=list)
    failures: list[tuple[str, float]] = field(factory=list)
    stopped: float = 0.0
    _open: dict[str, tuple[str, int, float]] = field(factory=dict)

    def turn(self, actor: str, phase: str | None, life: int) -> None:
        now = trio.current_time()
        if actor in self._open:
            before, its_life, since = self._open[actor]
            if now > since:
                self.spans.append(Span(actor, before, its_life, since, now))
            del self._open[actor]
        if phase is not None:
            self._open[actor] = (phase, life, now)


class Child(Actor[object]):
    """Takes a second to start and a second to close, so that the order can be seen."""

    def __init__(self, name: str, trace: Trace) -> None:
        self.name, self.trace = name, trace

    async def pre_start(self, ctx):
        self.trace.turn(self.name, STARTING, ctx.incarnation)
        await trio.sleep(1)
        self.trace.turn(self.name, RUNNING, ctx.incarnation)

    async def handle(self, message, ctx):
        self.trace.failures.append((self.name, trio.current_time()))
        raise OSError("fails in the figure")

    async def pre_restart(self, failure, ctx):
        await self.close(ctx, WAITING)

    async def post_stop(self, ctx):
        await self.close(ctx, None)

    async def close(self, ctx, then):
        self.trace.turn(self.name, CLOSING, ctx.incarnation)
        await trio.sleep(1)
        self.trace.turn(self.name, then, ctx.incarnation)


class Supervisor(Actor[object]):
    def __init__(self, strategy: SupervisorStrategy, trace: Trace) -> None:
        self.supervisor_strategy, self.trace = strategy, trace

    async def pre_start(self, ctx):
        for name in "abcd":
            await ctx.spawn(Props(factory=partial(Child, name, self.trace)), name)

    async def handle(self, message, ctx):
        """Nothing is told to it."""


async def story(strategy: SupervisorStrategy, trace: Trace) -> None:
    """Four children start, the second fails, and a while after everything is up again the supervisor is stopped."""
    async with ActorSystem.create("figure") as system:
        supervisor = await system.actor_of(Props(factory=lambda: Supervisor(strategy, trace)), "supervisor")
        await trio.sleep_until(trio.current_time() + 1)
        system.lookup("/supervisor/b").tell("fail")
        await trio.sleep(9)
        trace.stopped = trio.current_time()
        supervisor.stop()
        await supervisor.wait_terminated()


def traced(strategy: SupervisorStrategy) -> Trace:
    """Run the story and return what happened; times count from its beginning."""
    trace = Trace()
    clock = MockClock(autojump_threshold=0)

    async def main() -> float:
        began = trio.current_time()
        await story(strategy, trace)
        return began

    began = trio.run(main, clock=clock)
    at = partial(_since, began)
    spans = [Span(s.actor, s.phase, s.life, at(s.begin), at(s.end)) for s in trace.spans]
    # What happens at one time is in no order: the scheduler draws it.
    trace.spans = sorted(spans, key=lambda span: (span.begin, span.actor))
    trace.failures = [(actor, at(when)) for actor, when in trace.failures]
    trace.stopped = at(trace.stopped)
    return trace


def _since(began: float, when: float) -> float:
    return round(when - began, 6)


# Drawing.

SECOND, LANE, LEFT, TOP = 32, 40, 42, 72
LONGEST = 18  # seconds; all figures of strategies have one scale
FILLS = {STARTING: "#bcd7f0", RUNNING: "#2f6fab", CLOSING: "#f0b24a", WAITING: "none"}
INK, SOFT, RED = "#1d2733", "#66727f", "#c2272d"
FONT = "font-family='system-ui,-apple-system,Segoe UI,Roboto,Helvetica,Arial,sans-serif'"


def text(x: float, y: float, said: str, *, size: int = 13, fill: str = INK, anchor: str = "start", bold: bool = False):
    weight = " font-weight='600'" if bold else ""
    look = f"font-size='{size}' fill='{fill}' text-anchor='{anchor}'{weight}"
    return f"<text x='{x:g}' y='{y:g}' {look}>{escape(said)}</text>"


def card(width: float, height: float, title: str, told: str, body: Iterator[str]) -> str:
    """Return an SVG on a light card, legible on a light page and on a dark one."""
    frame = (
        f"<rect x='.5' y='.5' width='{width - 1:g}' height='{height - 1:g}' rx='8' fill='#fdfdfb' stroke='#d4d8dd'/>"
    )
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:g} {height:g}' width='{width:g}' "
        f"height='{height:g}' role='img' aria-labelledby='t d' {FONT}>"
    )
    titles = f"<title id='t'>{escape(title)}</title>\n<desc id='d'>{escape(told)}</desc>"
    return "\n".join([head, titles, frame, *body, "</svg>", ""])


def strategy_figure(title: str, subtitle: str, strategy: SupervisorStrategy) -> str:
    trace = traced(strategy)
    width, height = LEFT + (LONGEST + 1) * SECOND + 12, TOP + 4 * LANE + 66
    return card(width, height, title, told(trace), _strategy_body(title, subtitle, trace, height))


def told(trace: Trace) -> str:
    """Say the figure in words, in the order of its events."""
    failed = [(when, f"{actor} fails at {when:g} s") for actor, when in trace.failures]
    failed.append((trace.stopped, f"the supervisor is stopped at {trace.stopped:g} s"))
    said = [(s.begin, f"{s.actor} is {s.phase} from {s.begin:g} to {s.end:g} s") for s in trace.spans]
    return "; ".join(sentence for _, sentence in sorted(failed + said, key=lambda pair: pair[0])) + "."


def _strategy_body(title: str, subtitle: str, trace: Trace, height: float) -> Iterator[str]:
    yield text(16, 26, title, size=16, bold=True)
    yield text(16, 46, subtitle, fill=SOFT)
    bottom = TOP + 4 * LANE
    for second in range(LONGEST + 1):
        x = LEFT + second * SECOND
        yield f"<line x1='{x}' y1='{TOP - 8}' x2='{x}' y2='{bottom}' stroke='#e6e9ec'/>"
        if second % 2 == 0:
            yield text(x, bottom + 16, f"{second} s", size=11, fill=SOFT, anchor="middle")
    for lane, name in enumerate("abcd"):
        yield text(20, TOP + lane * LANE + 21, name, size=15, bold=True)
    stop = LEFT + trace.stopped * SECOND
    yield f"<line x1='{stop:g}' y1='{TOP - 10}' x2='{stop:g}' y2='{bottom}' stroke='{RED}' stroke-dasharray='3 3'/>"
    yield text(stop + 4, TOP - 12, "the supervisor is stopped", size=11, fill=RED)
    for span in trace.spans:
        yield from _bar(span)
    for actor, when in trace.failures:
        yield from _cross(LEFT + when * SECOND, TOP + "abcd".index(actor) * LANE + 16)
    yield from _legend(height - 22)


def _bar(span: Span) -> Iterator[str]:
    x, y = LEFT + span.begin * SECOND, TOP + "abcd".index(span.actor) * LANE + 4
    width = (span.end - span.begin) * SECOND
    stroke = " stroke='#98a2ad' stroke-dasharray='4 3'" if span.phase == WAITING else " stroke='#fdfdfb'"
    yield f"<rect x='{x:g}' y='{y}' width='{width:g}' height='24' rx='3' fill='{FILLS[span.phase]}'{stroke}/>"
    if span.phase == RUNNING and width >= 48:
        yield text(x + width / 2, y + 16, f"life {span.life}", size=12, fill="#ffffff", anchor="middle")


def _cross(x: float, y: float) -> Iterator[str]:
    yield f"<circle cx='{x:g}' cy='{y}' r='9' fill='#fdfdfb' stroke='{RED}' stroke-width='2'/>"
    arms = f"M{x - 4:g} {y - 4}l8 8M{x + 4:g} {y - 4}l-8 8"
    yield f"<path d='{arms}' stroke='{RED}' stroke-width='2.4' stroke-linecap='round'/>"


LEGEND = ((STARTING, "pre_start"), (RUNNING, "handles mail"), (CLOSING, "closing hooks"), (WAITING, "waits its turn"))


def _legend(y: float) -> Iterator[str]:
    x = LEFT
    for phase, said in LEGEND:
        stroke = "#98a2ad' stroke-dasharray='4 3" if phase == WAITING else "none"
        yield f"<rect x='{x}' y='{y - 11:g}' width='20' height='14' rx='3' fill='{FILLS[phase]}' stroke='{stroke}'/>"
        yield text(x + 26, y, said, size=12, fill=SOFT)
        x += 126
    yield from _cross(x + 9, y - 4)
    yield text(x + 26, y, "fails", size=12, fill=SOFT)


WINDOW_MAX, WINDOW_SECONDS = 3, 10.0
FAILURES = (1.0, 4.0, 8.0, 11.0, 13.9)


def admissions() -> list[tuple[float, bool, int]]:
    """Put the figure's failures to a real window: when, whether it was admitted, and how many the window then held."""
    window = RestartWindow(WINDOW_MAX, WINDOW_SECONDS)
    return [(when, window.admit(when), window.count) for when in FAILURES]


def window_figure() -> str:
    came = admissions()
    said = [f"{when:g} s: {'restart' if ok else 'gives up'}, {count} in the window" for when, ok, count in came]
    title = f"The window: max_restarts={WINDOW_MAX}, within={WINDOW_SECONDS:g}"
    width, height = 662.0, 96.0 + 30 * len(came)
    return card(width, height, title, "; ".join(said) + ".", _window_body(title, came))


def _window_body(title: str, came: list[tuple[float, bool, int]]) -> Iterator[str]:
    second, left = 29, 24
    yield text(16, 26, title, size=16, bold=True)
    yield text(16, 46, "each bar is a restart, for as long as it counts", fill=SOFT)
    bottom = 66 + 30 * len(came)
    for at in range(0, 22, 2):
        x = left + at * second
        yield f"<line x1='{x}' y1='58' x2='{x}' y2='{bottom}' stroke='#e6e9ec'/>"
        yield text(x, bottom + 16, f"{at} s", size=11, fill=SOFT, anchor="middle")
    for row, (when, ok, count) in enumerate(came):
        x, y = left + when * second, 64 + 30 * row
        length = min(WINDOW_SECONDS, 21 - when) * second
        if ok:
            yield f"<rect x='{x:g}' y='{y}' width='{length:g}' height='20' rx='3' fill='{FILLS[STARTING]}'/>"
        said = f"restart, {count} in the window" if ok else f"still {count} in the window: it gives up"
        yield text(x + 16, y + 15, said, size=12, fill=INK if ok else RED, bold=not ok)
        yield from _cross(x, y + 10)


STRATEGIES: dict[str, tuple[str, Callable[[], SupervisorStrategy]]] = {
    "one_for_one": ("b alone is restarted", one_for_one),
    "one_for_all": ("b fails, everybody is restarted: down from the youngest, up from the eldest", one_for_all),
    "rest_for_one": ("b fails; c and d were started after it, and may rest on it", rest_for_one),
    "dynamic_pool": ("b alone is restarted; at the end all stop together", dynamic_pool),
}


def figures() -> dict[str, str]:
    """Return every figure by its file name."""
    drawn = {f"{name}.svg": strategy_figure(name, said, make()) for name, (said, make) in STRATEGIES.items()}
    return {**drawn, "window.svg": window_figure()}


def main() -> None:
    FIGURES.mkdir(exist_ok=True)
    for name, svg in figures().items():
        (FIGURES / name).write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
