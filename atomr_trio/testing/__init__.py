"""What a project built on actors tests itself with: virtual time, probes, fault points, cancellation everywhere.

Nothing here needs pytest or hypothesis, but for ``atomr_trio.testing.pytest_plugin``.
"""

from ._cancel import CancelReport as CancelReport
from ._cancel import CancelViolation as CancelViolation
from ._cancel import cancel_everywhere as cancel_everywhere
from ._clients import ClientFault as ClientFault
from ._clients import ClientFaultPlan as ClientFaultPlan
from ._clients import ask_badly as ask_badly
from ._clock import ManualClock as ManualClock
from ._events import EventProbe as EventProbe
from ._events import no_dead_letters as no_dead_letters
from ._fault_plan import Cancel as Cancel
from ._fault_plan import Crash as Crash
from ._fault_plan import Delay as Delay
from ._fault_plan import Drop as Drop
from ._fault_plan import FaultAction as FaultAction
from ._fault_plan import FaultPlan as FaultPlan
from ._fault_plan import InjectedFault as InjectedFault
from ._fault_plan import Odds as Odds
from ._faults import FaultRecord as FaultRecord
from ._faults import FaultScript as FaultScript
from ._faults import PlannedFaults as PlannedFaults
from ._faults import SeededFaults as SeededFaults
from ._faults import cancellable as cancellable
from ._faulty import with_faults as with_faults
from ._laws import LAWS as LAWS
from ._laws import LawBroken as LawBroken
from ._laws import Violation as Violation
from ._laws import check_laws as check_laws
from ._laws import violations as violations
from ._leaks import LeakedTasks as LeakedTasks
from ._leaks import all_tasks as all_tasks
from ._leaks import leaked_tasks as leaked_tasks
from ._leaks import no_leaks as no_leaks
from ._probe import TestProbe as TestProbe
from ._schedule import run_seeded as run_seeded
from ._schedule import seeded_schedule as seeded_schedule
from ._sim import SimWorld as SimWorld
from ._sim import WorldStuck as WorldStuck
from ._streams import SimStream as SimStream
from .history import Entry as Entry
from .history import History as History
