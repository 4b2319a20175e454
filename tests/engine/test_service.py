"""What the device process tells its server when it ends."""

import pytest

from atomr_trio.core import Backpressure, CudaContextPoisoned, ModelLoadError, OutOfMemory, Unrecoverable
from atomr_trio.engine.frames import Fatal
from atomr_trio.engine.service import fatal_frame


@pytest.mark.parametrize(
    ("error", "frame"),
    [
        (CudaContextPoisoned("CUDA_ERROR_X"), Fatal("ContextPoisoned", "CUDA_ERROR_X")),
        (OutOfMemory("no room"), Fatal("OutOfMemory", "no room")),
        (Unrecoverable("no"), Fatal("Unrecoverable", "no")),
        (ModelLoadError("no tensor"), Fatal("Unrecoverable", "cannot load the model: no tensor")),
        (Backpressure("lost"), Fatal("ContextPoisoned", "the engine failed: Backpressure")),
        (RuntimeError("at /opt/x 0x7f"), Fatal("ContextPoisoned", "the engine failed: RuntimeError")),
    ],
)
def test_every_error_has_a_tag_for_the_supervisor(error, frame):
    assert fatal_frame(error) == frame
