"""LLaRA, the Large Language-Recommendation Assistant, as an application."""


def __getattr__(name: str) -> str:
    if name == "__version__":
        # Reading the installed version takes longer than `--help` does otherwise.
        from importlib.metadata import version

        return version("llara-app")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
