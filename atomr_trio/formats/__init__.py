"""File formats that the engine and the text side share."""

from .gguf import GgufFile as GgufFile
from .gguf import GgufTensor as GgufTensor
from .hf_folder import HfFolder as HfFolder
from .hf_folder import HfWeights as HfWeights
from .safetensors import SafetensorsFile as SafetensorsFile
from .safetensors import SafetensorsTensor as SafetensorsTensor
