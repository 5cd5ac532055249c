"""How fast things are, and what they are worth."""

# Before torch is imported: how its threads wait is decided there.
import llara_app  # noqa: F401
