"""The model catalogue: from a model's name to a whole, checked file in the cache. Synchronous; knows no Trio."""

from ._cache import cache_dir as cache_dir
from ._ensure import ensure_model as ensure_model
from ._entries import DEFAULT_MODEL as DEFAULT_MODEL
from ._entries import Catalog as Catalog
from ._entries import HubFile as HubFile
from ._entries import LocalFile as LocalFile
from ._entries import ModelEntry as ModelEntry
from ._entries import ModelSource as ModelSource
from ._entries import WheelMember as WheelMember
from ._entries import WheelParts as WheelParts
from ._entries import default_catalog as default_catalog
from ._errors import CacheUnusable as CacheUnusable
from ._errors import CatalogError as CatalogError
from ._errors import DownloadFailed as DownloadFailed
from ._errors import HashMismatch as HashMismatch
from ._errors import ModelFileMissing as ModelFileMissing
from ._errors import ModelUnknown as ModelUnknown
from ._errors import NoSpace as NoSpace
from ._errors import ToolMissing as ToolMissing
from ._progress import Progress as Progress
from ._progress import ProgressCallback as ProgressCallback
from ._progress import Stage as Stage
