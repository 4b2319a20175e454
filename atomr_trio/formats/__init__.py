"""File formats that the engine and the text side share."""

from .gguf import GgufFile as GgufFile
from .gguf import GgufTensor as GgufTensor
