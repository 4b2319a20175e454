"""The seed's actors, wired: request, coordinator, engine, worker and context, deployments, metrics."""

from . import messages as messages
from .cluster import Cluster as Cluster
from .context import ContextActor as ContextActor
from .coordinator import DpCoordinatorActor as DpCoordinatorActor
from .deployments import DeploymentManagerActor as DeploymentManagerActor
from .directory import Directory as Directory
from .engine_core import EngineCoreActor as EngineCoreActor
from .messages import DeploymentMetrics as DeploymentMetrics
from .messages import DeploymentRecord as DeploymentRecord
from .metrics import MetricsActor as MetricsActor
from .request import RequestActor as RequestActor
from .stream import TokenStream as TokenStream
from .worker import WorkerActor as WorkerActor
