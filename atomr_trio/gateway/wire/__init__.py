"""The OpenAI wire format: requests in, answers out. Pure: no I/O, no Trio."""

from ._chat_request import ChatRequest as ChatRequest
from ._chat_request import chat_generation as chat_generation
from ._chat_request import decode_chat as decode_chat
from ._completion_request import CompletionRequest as CompletionRequest
from ._completion_request import completion_generation as completion_generation
from ._completion_request import decode_completion as decode_completion
from ._generation import Generation as Generation
from ._generation import expand as expand
from ._generation import total_usage as total_usage
from ._objects import ModelList as ModelList
from ._objects import ModelObject as ModelObject
from ._shapes import ChatShape as ChatShape
from ._shapes import CompletionShape as CompletionShape
from ._shapes import Shape as Shape
from ._sse import DONE as DONE
from ._sse import PING as PING
from ._sse import event as event
from ._sse import to_json as to_json
