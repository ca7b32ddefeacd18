"""JSON Schema from Python things (functions, models, types), its strict subset, and a small validator.
Pure: it knows no provider, reads no file, and never runs the function it describes.
"""

from polyvox.schema.check import validate
from polyvox.schema.derive import schema_of
from polyvox.schema.describe import format_from, tool_from
from polyvox.schema.strict import strict_form, without_nulls

__all__ = ["format_from", "schema_of", "strict_form", "tool_from", "validate", "without_nulls"]
