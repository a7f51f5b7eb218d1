"""Keep Python from importing modules that lie beside the data.

A folder that is screened may hold a ``numpy.py``. Python looks in the working directory first when
it is started with ``-c``, as ``multiprocessing`` starts its processes, or with ``-m``. Only ``os``
and ``sys`` are imported here: every Python has loaded them before it looks anywhere.
"""

import os
import sys

SAFE_PATH = "PYTHONSAFEPATH"
"""Environment variable that tells a new Python to keep the working directory off its path."""

HOME = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
"""Folder that this package is imported from."""


def leave_working_directory() -> None:
    """Take the working directory off the path of this process and of those that it starts.

    It stays if ``PYTHONPATH`` names it, or if this package itself lies there. An empty entry of
    ``PYTHONPATH``, such as a colon at its end makes, names nothing.
    """
    os.environ[SAFE_PATH] = "1"
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = [entry for entry in named if entry]
    try:
        here = os.path.realpath(os.getcwd())
    except OSError:  # it was deleted, so nothing can be imported from it
        return
    if here == HOME and here not in map(os.path.realpath, kept):
        kept.insert(0, here)
    if kept != named and (kept or "PYTHONPATH" in os.environ):
        os.environ["PYTHONPATH"] = os.pathsep.join(kept)
    if here in map(os.path.realpath, kept):
        return
    # what comes after the standard library was installed, wherever it lies
    library = os.path.dirname(os.__file__)
    end = sys.path.index(library) if library in sys.path else len(sys.path)
    sys.path[:end] = [entry for entry in sys.path[:end] if os.path.realpath(entry) != here]
