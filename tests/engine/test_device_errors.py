"""What a failed step means, by its text."""

import jax
import pytest

from atomr_trio.engine.device_errors import DeviceFault, classify_device_error, fault_name

Runtime = jax.errors.JaxRuntimeError

POISONED = [
    "INTERNAL: Failed to synchronize: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered",
    "INTERNAL: CUDA error: Failed to launch: CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure",
    "CUDA_ERROR_MISALIGNED_ADDRESS: misaligned address",
    "CUDA_ERROR_ILLEGAL_INSTRUCTION: an illegal instruction was encountered",
    "CUDA_ERROR_ECC_UNCORRECTABLE: uncorrectable ECC error encountered",
    "UNKNOWN: DEVICE_LOST",
    "unspecified launch failure",
    "INTERNAL: the library was not initialized: CUBLAS_STATUS_EXECUTION_FAILED",
    "INTERNAL: CUBLAS_STATUS_INTERNAL_ERROR",
    "INTERNAL: CUDNN_STATUS_EXECUTION_FAILED in external/xla/xla/stream_executor/cuda/cuda_dnn.cc(6245)",
    "INTERNAL: CUDNN_STATUS_INTERNAL_ERROR",
    "INTERNAL: NCCL operation ncclGroupEnd() failed: unhandled cuda error",
    # Poison wins over what came after it.
    "RESOURCE_EXHAUSTED: CUDA_ERROR_ILLEGAL_ADDRESS",
    # Unknown trouble of the device: a restart is safe.
    "INTERNAL: something that nobody has seen before",
    "ABORTED: hm",
]
MEMORY = [
    "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 34359738368 bytes.",
    "INTERNAL: Failed to allocate: CUDA_ERROR_OUT_OF_MEMORY: out of memory",
]


@pytest.mark.parametrize("text", POISONED)
def test_poison(text):
    assert classify_device_error(Runtime(text)) is DeviceFault.POISONED


@pytest.mark.parametrize("text", MEMORY)
def test_memory(text):
    assert classify_device_error(Runtime(text)) is DeviceFault.OUT_OF_MEMORY


@pytest.mark.parametrize(
    "error",
    [
        TypeError("dot_general requires contracting dimensions to have the same shape"),
        ValueError("Incompatible shapes for broadcasting"),
        IndexError("list index out of range"),
        Runtime("INVALID_ARGUMENT: Executable expected shape s32[8,19] but got s32[8,18]"),
        NotImplementedError("no rule"),
    ],
)
def test_bugs(error):
    assert classify_device_error(error) is DeviceFault.BUG


def test_python_out_of_memory():
    assert classify_device_error(MemoryError()) is DeviceFault.OUT_OF_MEMORY


def test_the_name_of_a_fault_has_nothing_of_the_machine_in_it():
    error = Runtime("INTERNAL: at /opt/x/cuda.cc:77 0x7f00: CUDA_ERROR_ILLEGAL_ADDRESS: illegal")
    assert fault_name(error) == "CUDA_ERROR_ILLEGAL_ADDRESS"
    assert fault_name(Runtime("INTERNAL: /opt/x")) == "JaxRuntimeError"
