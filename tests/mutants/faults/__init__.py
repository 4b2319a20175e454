"""The faults, by what they are about."""

from tests.mutants.fault import Fault

from .finding import FINDING
from .living import LIVING
from .supervising import SUPERVISING
from .talking import TALKING

__all__ = ["FAULTS"]

FAULTS: tuple[Fault, ...] = (*SUPERVISING, *LIVING, *TALKING, *FINDING)
