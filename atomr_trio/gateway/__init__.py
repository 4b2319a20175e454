"""The HTTP edge: an OpenAI-compatible API on Quart-Trio, and the hardened Hypercorn driver under it."""

from .access import ApiKey as ApiKey
from .access import Cors as Cors
from .access import KeyFileError as KeyFileError
from .access import KeyRing as KeyRing
from .app import create_app as create_app
from .backend import AnswerStream as AnswerStream
from .backend import GatewayBackend as GatewayBackend
from .backend import ModelInfo as ModelInfo
from .backend import Readiness as Readiness
from .connections import Connections as Connections
from .drain import Drain as Drain
from .errors import ErrorReply as ErrorReply
from .errors import error_object as error_object
from .errors import error_reply as error_reply
from .guard import Guard as Guard
from .key_store import KeyStore as KeyStore
from .logs import Log as Log
from .logs import stderr_log as stderr_log
from .server import serve as serve
from .settings import GatewaySettings as GatewaySettings
from .settings import ServerSettings as ServerSettings
from .sockets import BindError as BindError
from .sockets import open_sockets as open_sockets
from .sockets import urls as urls
