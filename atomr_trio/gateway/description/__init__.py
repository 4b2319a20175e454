"""The description of the HTTP API in OpenAPI's form, made from the routes' table. Pure: no I/O, no Trio."""

from ._document import describe as describe
from ._entrance import Entrance as Entrance
from ._errors import BODY_ERRORS as BODY_ERRORS
from ._errors import GENERATION_ERRORS as GENERATION_ERRORS
from ._errors import ErrorBody as ErrorBody
from ._route import Route as Route
