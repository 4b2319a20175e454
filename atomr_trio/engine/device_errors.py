"""What an exception out of a step means for the device. Pure."""

import enum
import re

__all__ = ["DeviceFault", "classify_device_error", "fault_name"]


class DeviceFault(enum.Enum):
    """What to do about a failed step.

    ``POISONED``: the device context is lost, end the process. ``OUT_OF_MEMORY``: the context is healthy, but the cache
    may be gone. ``BUG``: the step's own fault (a bad shape or argument).
    """

    POISONED = enum.auto()
    OUT_OF_MEMORY = enum.auto()
    BUG = enum.auto()


# CUDA's own text for these: the process is inconsistent and must be terminated and relaunched.
_POISON = re.compile(
    r"CUDA_ERROR_(?:ILLEGAL_ADDRESS|ILLEGAL_INSTRUCTION|LAUNCH_FAILED|LAUNCH_TIMEOUT|MISALIGNED_ADDRESS"
    r"|ECC_UNCORRECTABLE|HARDWARE_STACK_ERROR|INVALID_PC|INVALID_ADDRESS_SPACE|ASSERT|CONTEXT_IS_DESTROYED|DEVICE_LOST)"
    r"|DEVICE_LOST|unspecified launch failure|an illegal memory access was encountered|uncorrectable ECC error"
    r"|CUBLAS_STATUS_(?:EXECUTION_FAILED|INTERNAL_ERROR)|CUDNN_STATUS_(?:EXECUTION_FAILED|INTERNAL_ERROR)"
    r"|(?:cuBLAS|cuDNN)\w* \w*(?:EXECUTION_FAILED|INTERNAL_ERROR)"
    r"|NCCL (?:operation|error|failure)|ncclSystemError|ncclInternalError|ncclUnhandledCudaError",
    re.IGNORECASE,
)
_MEMORY = re.compile(r"RESOURCE_EXHAUSTED|CUDA_ERROR_OUT_OF_MEMORY|out of memory", re.IGNORECASE)
_ARGUMENT = re.compile(r"INVALID_ARGUMENT")


def classify_device_error(error: BaseException) -> DeviceFault:
    """Say what a step's exception means, by its type and text.

    A runtime error that is none of the known ones counts as poison: a restart is safe, and a lost context that goes on
    answering is not.
    """
    text = str(error)
    if _POISON.search(text):
        return DeviceFault.POISONED
    if isinstance(error, MemoryError) or _MEMORY.search(text):
        return DeviceFault.OUT_OF_MEMORY
    # jax.errors.JaxRuntimeError is a RuntimeError; what Python itself raises while tracing never touched the device.
    if not isinstance(error, RuntimeError) or isinstance(error, NotImplementedError) or _ARGUMENT.search(text):
        return DeviceFault.BUG
    return DeviceFault.POISONED


def fault_name(error: BaseException) -> str:
    """Return the error's known marker or type: fit for clients, unlike its text, which has paths and addresses."""
    found = _POISON.search(str(error))
    return found.group() if found else type(error).__name__
