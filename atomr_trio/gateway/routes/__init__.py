"""The routes."""

from ._gateway import RELEASE as RELEASE
from ._gateway import Gateway as Gateway
from ._gateway import current_request_id as current_request_id
from ._gateway import release_of as release_of
from ._table import ROUTES as ROUTES
from ._table import register_routes as register_routes
