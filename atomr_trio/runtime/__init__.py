"""The seed's actors, wired: request, coordinator, engine, worker and context, deployments, metrics."""

from .context import ContextActor as ContextActor
from .coordinator import DpCoordinatorActor as DpCoordinatorActor
from .deployments import DeploymentManagerActor as DeploymentManagerActor
from .engine_core import EngineCoreActor as EngineCoreActor
from .messages import *
from .metrics import MetricsActor as MetricsActor
from .request import RequestActor as RequestActor
from .stream import TokenStream as TokenStream
from .worker import WorkerActor as WorkerActor
