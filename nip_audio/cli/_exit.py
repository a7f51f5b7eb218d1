"""Exit codes of the command line, all in one place; docs/json.md explains them.

1 is what Python returns when it dies of an exception, and 2 is what command-line libraries return
for wrong usage: the tool uses neither, so that a crash never looks like a result.
"""

from __future__ import annotations

EXIT_CLEAN = 0
EXIT_FLAGGED = 3  # something was flagged, or a claim was rejected
EXIT_FAILED = 4  # some files could not be judged
EXIT_FLAGGED_AND_FAILED = 5

# as sysexits.h has them
EXIT_USAGE = 64
EXIT_REFUSED = 65  # the command could not run: its input, model, calibration or output
EXIT_DEFECT = 70  # a defect of nip-audio, a broken installation, or too little memory
EXIT_OUTPUT = 74  # standard output, or a disk, takes no more

# as shells have them: 128 and the number of the signal
EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141
EXIT_TERMINATED = 143
