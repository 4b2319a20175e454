"""The text side of a model: tokenizer, chat template, incremental detokenizer, stop strings. Pure; knows no Trio."""

from .answer import AnswerParser as AnswerParser
from .codec import OutputDecoder as OutputDecoder
from .codec import TextCodec as TextCodec
from .detokenizer import Detokenizer as Detokenizer
from .dialogue import THOUGHTS as THOUGHTS
from .dialogue import Dialogue as Dialogue
from .dialogue import ThoughtStyle as ThoughtStyle
from .dialogue import ToolStyle as ToolStyle
from .stops import StopMatcher as StopMatcher
from .template import ChatTemplate as ChatTemplate
from .tokenizer import Tokenizer as Tokenizer
