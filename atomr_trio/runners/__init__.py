"""One file per runtime, and their registry."""

from .registry import RunnerRegistry as RunnerRegistry
