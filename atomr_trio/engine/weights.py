"""A model's weights: the tree, and where it can be read from."""

from .params import LayerParams as LayerParams
from .params import Params as Params
from .weights_dummy import random_params as random_params
from .weights_gguf import load_gguf_params as load_gguf_params
from .weights_hf import load_hf_params as load_hf_params
