from .base import KINDS as KINDS
from .base import SourceKind as SourceKind
from .base import SourceModel as SourceModel
from .base import SourceSpec as SourceSpec
from .base import load_source as load_source
from .base import parse_spec as parse_spec
