"""The decisions alone, without any loop: windows, pauses, directives, groups, routes, and the plan of a shutdown."""

from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from atomr_trio.actor import (
    AutoShutdown,
    Backoff,
    ConsistentHash,
    Directive,
    HashRing,
    LeastLoaded,
    Phase,
    RestartWindow,
    RoundRobin,
    Scope,
    ShutdownPlan,
    SupervisorStrategy,
    by_type,
    escalating,
    leaves,
    one_for_all,
    one_for_one,
    rest_for_one,
    stopping,
)

# Whole numbers make "exactly a window apart" common, fractions make sure of everything between.
GAPS = st.lists(st.integers(0, 5) | st.floats(0, 6), max_size=40) | st.lists(st.floats(0, 60), max_size=40)


@settings(max_examples=200)
@given(max_restarts=st.integers(0, 5), within=st.integers(1, 8) | st.floats(0.5, 100), gaps=GAPS)
def test_the_window_admits_exactly_what_a_naive_count_admits(max_restarts, within, gaps):
    window, now, admitted = RestartWindow(max_restarts, within), 0.0, []
    for gap in gaps:
        now += gap
        inside = sum(now - at < within for at in admitted)
        assert window.admit(now) is (inside < max_restarts)
        if inside < max_restarts:
            admitted.append(now)
        assert window.count == sum(now - at < within for at in admitted) <= max_restarts


BACKOFFS = st.builds(
    Backoff,
    initial=st.floats(0, 10),
    maximum=st.floats(0, 100),
    factor=st.floats(1, 5),
    jitter=st.floats(0, 1),
)
DRAWS = st.floats(0, 1, exclude_max=True)


@given(backoff=BACKOFFS, earlier=st.integers(0, 10_000), draw=DRAWS)
def test_a_pause_grows_to_its_bound_and_jitter_only_shortens_it(backoff, earlier, draw):
    longest = min(backoff.initial * backoff.factor ** min(earlier, 64), backoff.maximum)
    assert backoff.delay(earlier, 0.0) == pytest.approx(longest)
    assert longest * (1 - backoff.jitter) - 1e-9 <= backoff.delay(earlier, draw) <= longest <= backoff.maximum
    assert backoff.delay(earlier, draw) == pytest.approx(longest * (1 - backoff.jitter * draw))
    assert backoff.delay(earlier, draw) <= backoff.delay(earlier + 1, draw) + 1e-9


class Base(Exception):
    pass


class Left(Base):
    pass


class Right(Base):
    pass


class Both(Left, Right):
    pass


CLASSES = [Exception, Base, Left, Right, Both]
NEAREST = {
    Exception: [Exception],
    Base: [Base, Exception],
    Left: [Left, Base, Exception],
    Right: [Right, Base, Exception],
    Both: [Both, Left, Right, Base, Exception],
    ValueError: [Exception],
}
"""The classes that may decide about each kind, the nearest first."""


@given(
    table=st.dictionaries(st.sampled_from(CLASSES), st.sampled_from(Directive)),
    kind=st.sampled_from(list(NEAREST)),
    otherwise=st.sampled_from(Directive),
)
@example({Exception: Directive.STOP, Base: Directive.RESUME}, Left, Directive.ESCALATE)
@example({Exception: Directive.STOP, Base: Directive.RESUME}, ValueError, Directive.ESCALATE)
@example({}, ValueError, Directive.ESCALATE)
def test_the_nearest_base_class_decides(table, kind, otherwise):
    expected = next((table[cls] for cls in NEAREST[kind] if cls in table), otherwise)
    assert by_type(table, otherwise=otherwise)(kind()) is expected
    for make, scope in (
        (one_for_one, Scope.ONE_FOR_ONE),
        (one_for_all, Scope.ONE_FOR_ALL),
        (rest_for_one, Scope.REST_FOR_ONE),
    ):
        strategy = make(table, otherwise=otherwise, max_restarts=7, within=3)
        assert strategy.decider(kind()) is expected
        assert (strategy.scope, strategy.max_restarts, strategy.within) == (scope, 7, 3)
    assert one_for_one().decider(kind()) is Directive.RESTART
    assert stopping().decider(kind()) is Directive.STOP
    assert escalating().decider(kind()) is Directive.ESCALATE


@given(children=st.lists(st.integers(), min_size=1, unique=True), data=st.data())
def test_a_failure_concerns_whom_its_scope_says_in_start_order(children, data):
    failed = data.draw(st.sampled_from(children))
    after = children[children.index(failed) :]
    assert SupervisorStrategy(scope=Scope.ONE_FOR_ONE).affected(children, failed) == [failed]
    assert SupervisorStrategy(scope=Scope.ONE_FOR_ALL).affected(children, failed) == children
    assert SupervisorStrategy(scope=Scope.REST_FOR_ONE).affected(children, failed) == after


@given(auto=st.sampled_from(AutoShutdown), ended=st.booleans(), others=st.lists(st.booleans()))
def test_a_job_is_done_with_its_first_or_its_last_significant_child(auto, ended, others):
    expected = {
        AutoShutdown.NEVER: False,
        AutoShutdown.ANY_SIGNIFICANT: ended,
        AutoShutdown.ALL_SIGNIFICANT: ended and True not in others,
    }
    assert SupervisorStrategy(auto_shutdown=auto).done(ended, others) is expected[auto]


GROUPS = st.recursive(
    st.sampled_from(CLASSES).map(lambda kind: kind()),
    lambda inner: st.lists(inner, min_size=1, max_size=3).map(lambda errors: ExceptionGroup("g", errors)),
    max_leaves=8,
)


@given(GROUPS)
def test_the_leaves_of_a_group_are_its_exceptions_in_order(failure):
    def flat(error):
        return [leaf for each in error.exceptions for leaf in flat(each)] if hasattr(error, "exceptions") else [error]

    assert list(leaves(failure)) == flat(failure)


# Routes.

NODES = st.sets(st.text(max_size=5), min_size=1, max_size=8)
KEYS = st.lists(st.text(max_size=8) | st.binary(max_size=8) | st.integers(), max_size=50)


@given(nodes=NODES, new=st.text(max_size=5), keys=KEYS)
def test_a_new_node_takes_keys_only_to_itself_and_leaving_gives_exactly_those_back(nodes, new, keys):
    without = HashRing(nodes - {new}, virtual_nodes=8)
    with_new = HashRing(nodes | {new}, virtual_nodes=8)
    for key in keys:
        # The ring without it may be empty: then it is the only node, and owns every key.
        assert with_new.owner(key) in nodes | {new}
        if with_new.owner(key) != new:
            assert without.owner(key) == with_new.owner(key)


@given(nodes=st.lists(st.text(max_size=5), min_size=1, max_size=8), keys=KEYS)
def test_the_order_and_the_repetition_of_nodes_do_not_matter(nodes, keys):
    ring, other = HashRing(nodes, virtual_nodes=4), HashRing(reversed(nodes * 2), virtual_nodes=4)
    assert [ring.owner(key) for key in keys] == [other.owner(key) for key in keys]


@given(count=st.integers(2, 8))
def test_a_ring_shares_the_keys_out_and_few_of_them_move(count):
    keys = range(2000)
    ring, larger = (HashRing([f"/pool/{i}" for i in range(n)]) for n in (count, count + 1))
    shares = Counter(ring.owner(key) for key in keys)
    assert len(shares) == count
    assert max(shares.values()) < 2 * len(keys) / count
    moved = sum(ring.owner(key) != larger.owner(key) for key in keys)
    assert 0 < moved < 2 * len(keys) / (count + 1)


class Stub:
    """Has what a routing strategy looks at."""

    def __init__(self, name, queued=0):
        self.path, self.queued = name, queued


@given(rounds=st.lists(st.integers(1, 5), max_size=40))
def test_round_robin_is_fair_while_the_routees_stay_and_never_out_of_range(rounds):
    strategy = RoundRobin()
    for count in rounds:
        routees = tuple(Stub(str(i)) for i in range(count))
        picked = Counter(strategy.pick(None, routees).path for _ in range(3 * count))
        assert picked == {str(i): 3 for i in range(count)}


@given(loads=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), max_size=30))
def test_least_loaded_takes_a_minimum_and_equals_in_turn(loads):
    strategy = LeastLoaded()
    for queued in loads:
        routees = tuple(Stub(str(i), load) for i, load in enumerate(queued))
        idlest = [routee for routee in routees if routee.queued == min(queued)]
        assert Counter(strategy.pick(None, routees) for _ in idlest) == Counter(idlest)


@given(names=st.lists(st.text(max_size=3), min_size=1, max_size=6, unique=True), keys=st.lists(st.integers(0, 50)))
def test_a_key_stays_with_its_routee_until_that_one_leaves(names, keys):
    routees = tuple(Stub(name) for name in names)
    strategy = ConsistentHash(abs, virtual_nodes=8)
    before = {key: strategy.pick(key, routees) for key in keys}
    rest = routees[1:]
    for key in keys:
        assert strategy.pick(-key, routees) is before[key]
    for key in keys if rest else ():
        after = strategy.pick(key, rest)
        assert after in rest
        if before[key] is not routees[0]:
            assert after is before[key]


# The plan of a shutdown.


async def nothing():
    pass


PLAN_OPERATIONS = st.one_of(
    st.tuples(st.just("add"), st.sampled_from(["a", "b", "c"])),
    st.tuples(st.just("remove"), st.integers(0, 9)),
    st.tuples(st.just("advance"), st.none()),
    st.tuples(st.just("skip"), st.none()),
)


@given(st.lists(PLAN_OPERATIONS, max_size=30))
def test_the_plan_yields_each_phase_once_with_the_tasks_it_then_has(operations):
    timeouts = {"a": 1.0, "b": 2.0, "c": 3.0}
    plan = ShutdownPlan(tuple(Phase(*phase) for phase in timeouts.items()))
    coming, added = list("abc"), []
    for i, (what, argument) in enumerate(operations):
        if what == "add":
            assert plan.has_begun(argument) is (argument not in coming)
            own = float(i + 1) if i % 2 else None
            added.append(plan.add(argument, "task", nothing, own))
            assert added[-1].timeout == (own or timeouts[argument])
        elif what == "remove" and added:
            plan.remove(added.pop(argument % len(added)))
        elif what == "skip":
            plan.skip_rest()
            coming = []
        elif what == "advance":
            step, name = plan.advance(), coming.pop(0) if coming else None
            expected = name and (name, [task for task in added if task.phase == name])
            assert (step and (step[0].name, list(step[1]))) == expected
