"""The JAX engine and the process that it lives in.

Nothing here imports jax: a server needs only ``frames``, ``settings`` and ``environment``. The engine itself is
``atomr_trio.engine.engine.Engine``, for use inline; the process around it is ``atomr_trio.engine.process``.
"""

from .environment import child_command as child_command
from .environment import child_environment as child_environment
from .settings import EngineSettings as EngineSettings
