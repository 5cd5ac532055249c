"""Training: encoders, the LLM with its projector, experiments, and the nano LLM itself."""

# Before torch is imported: how its threads wait is decided there.
import llara_app  # noqa: F401
