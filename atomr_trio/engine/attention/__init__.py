"""Attention over cached keys and values: one interface, several back-ends."""

from .blocked import attend_blocked as attend_blocked
from .choice import choose_backend as choose_backend
from .pages import attend_pages as attend_pages
from .spec import Attend as Attend
from .spec import AttentionSpec as AttentionSpec
from .view import View as View
from .view import attend_view as attend_view
from .view import fill_row as fill_row
from .view import joined as joined
from .view import parted as parted
from .view import view_shapes as view_shapes
