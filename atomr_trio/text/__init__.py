"""The text side of a model: tokenizer, chat template, incremental detokenizer, stop strings. Pure; knows no Trio."""

from .codec import OutputDecoder as OutputDecoder
from .codec import TextCodec as TextCodec
from .detokenizer import Detokenizer as Detokenizer
from .stops import StopMatcher as StopMatcher
from .template import ChatTemplate as ChatTemplate
from .tokenizer import Tokenizer as Tokenizer
