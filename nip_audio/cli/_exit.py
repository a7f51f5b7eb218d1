"""Exit codes of the command line, which docs/reference/json.md explains.

Python exits with 1 after an uncaught exception, and command-line libraries exit with 2 after wrong
usage. This tool uses neither, so that a crash never looks like a result.
"""

from __future__ import annotations

EXIT_CLEAN = 0
EXIT_FLAGGED = 3  # something was flagged, or a claim was rejected
EXIT_FAILED = 4  # not everything was judged: unreadable, out of domain, passed over, doubtful
EXIT_FLAGGED_AND_FAILED = 5

# values of sysexits.h
EXIT_USAGE = 64
EXIT_REFUSED = 65  # the command could not run: its input, model, calibration or output
EXIT_DEFECT = 70  # a defect of nip-audio, a broken installation, or too little memory
EXIT_OUTPUT = 74  # standard output or a disk cannot be written

# values of shells: 128 plus the number of the signal
EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141
EXIT_TERMINATED = 143
