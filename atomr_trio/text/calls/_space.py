"""White space between the parts of a call."""

import re
from typing import Final

__all__ = ["SPACE", "WHITE"]

WHITE: Final = " \t\r\n"
SPACE: Final = re.compile(r"[ \t\r\n]*")
