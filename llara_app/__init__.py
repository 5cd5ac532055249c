"""LLaRA, the Large Language-Recommendation Assistant, as an application."""

import os

if "OMP_WAIT_POLICY" not in os.environ:
    # GNU's OpenMP, which torch computes with on Linux, reads this when it is loaded. Its threads wait for one another
    # by asking again and again, by default for milliseconds: on cores that another process uses too they hold up the
    # very threads that they wait for, and two trainings side by side take far longer than one after the other.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def __getattr__(name: str) -> str:
    if name == "__version__":
        # Reading the installed version takes longer than `--help` does otherwise.
        from importlib.metadata import version

        return version("llara-app")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
