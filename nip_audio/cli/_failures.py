"""Turn a failure into a message and an exit code that no result has.

Only the standard library is imported here, because any other package may be the broken one.
"""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any, TextIO

from nip_audio.cli._exit import (
    EXIT_DEFECT,
    EXIT_INTERRUPTED,
    EXIT_OUTPUT,
    EXIT_PIPE_CLOSED,
    EXIT_REFUSED,
    EXIT_TERMINATED,
)
from nip_audio.errors import NipAudioError, WorkerError, lacks_memory

_RESUME = (
    "files written so far are kept. screen, evaluate and fit-purifier resume where they stopped if "
    "you run the same command again"
)
_ARGUMENT = re.compile(r"`([a-z]\w*)(?:=([\w.]+))?`")
_AGAIN_S, _SOON_S = 5.0, 0.02
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class Terminated(BaseException):
    """SIGTERM was received. Like ``KeyboardInterrupt``, this is no ``Exception``."""


@contextmanager
def terminable() -> Iterator[None]:
    """Raise at the first SIGTERM or SIGINT, so that files are closed; a second SIGTERM kills.

    An exception can be lost, for example in a destructor, or in a function that a C library calls
    back, which prints it and goes on. Where such a function runs, the exception comes a moment
    later; and it is raised again every few seconds, until the command has ended.

    Raises:
        Terminated: Once more at the end, for a library may have swallowed it.
        KeyboardInterrupt: Once more at the end, after SIGINT.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    end = _End()
    try:
        yield
    finally:
        end.stop()
        if end.raised is not None:
            raise end.raised


class _End:
    """Handler of the signals that end a command, from now on until ``stop``."""

    def __init__(self) -> None:
        self.raised: type[BaseException] | None = None
        self.timer = getattr(signal, "setitimer", None)  # not on Windows
        self.before: dict[signal.Signals, Any] = {signal.SIGTERM: signal.SIG_DFL}
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self.before[signal.SIGINT] = signal.default_int_handler
        for one in self.before:
            signal.signal(one, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Raise, or come again soon where the exception would be lost."""
        if self.raised is None:
            self.raised = KeyboardInterrupt if number == signal.SIGINT else Terminated
        self._restore()
        if self.timer is not None:
            signal.signal(signal.SIGALRM, self)
            lost = _called_back(frame)
            self.timer(signal.ITIMER_REAL, _SOON_S if lost else _AGAIN_S)
            if lost:
                return
        raise self.raised

    def stop(self) -> None:
        """Restore the handlers that were there before."""
        self._restore()
        if self.raised is not None and self.timer is not None:
            self.timer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def _restore(self) -> None:
        for one, handler in self.before.items():
            signal.signal(one, handler)


def _called_back(frame: FrameType | None) -> bool:
    """Tell whether a function that soundfile's C library calls back is running."""
    while frame is not None:
        code = frame.f_code
        if code.co_name.startswith("vio_") and os.path.basename(code.co_filename) == "soundfile.py":
            return True
        frame = frame.f_back
    return False


def code_after(err: BaseException) -> int:
    """Print what went wrong on standard error, and return the exit code."""
    chain = _chain(err)
    if any(isinstance(one, Terminated) for one in chain):
        _tell(f"terminated; {_RESUME}")
        return EXIT_TERMINATED
    if any(isinstance(one, KeyboardInterrupt) for one in chain):
        _tell(f"interrupted; {_RESUME}")
        return EXIT_INTERRUPTED
    if isinstance(err, NipAudioError):
        _tell_error(str(err))
        return EXIT_DEFECT if isinstance(err, WorkerError) else EXIT_REFUSED
    return (
        _output_failed(err, chain)
        or _memory_failed(chain)
        or _import_failed(err)
        or _is_a_defect(err)
    )


def flush_outputs(code: int) -> int:
    """Flush the output buffers while a failure can still be reported; return the exit code."""
    failure = _flush_error(sys.stdout)
    if failure is not None:
        code = _output_code(failure)
        _silence(sys.stdout)
    if _flush_error(sys.stderr) is not None:
        _silence(sys.stderr)  # nobody reads it any more; the result is still valid
    return code


def _chain(err: BaseException) -> list[BaseException]:
    """List an exception and its causes."""
    found: list[BaseException] = []
    one: BaseException | None = err
    while one is not None and one not in found:
        found.append(one)
        one = one.__cause__ or one.__context__
    return found


def _output_failed(err: BaseException, chain: list[BaseException]) -> int | None:
    """Return the exit code if standard output is closed, or it or a disk cannot be written."""
    # rich raises SystemExit when the reader has closed the pipe
    broken = isinstance(err, SystemExit) and any(isinstance(e, BrokenPipeError) for e in chain)
    if not broken and not isinstance(err, OSError):
        return None
    failure = _flush_error(sys.stdout)
    if broken or (isinstance(err, BrokenPipeError) and (failure or _reader_is_gone())):
        _silence(sys.stdout)
        return EXIT_PIPE_CLOSED
    if failure is not None and isinstance(err, OSError) and err.errno == failure.errno:
        _silence(sys.stdout)
        return _output_code(failure)
    if isinstance(err, OSError) and err.errno in _FULL:
        return _cannot_write(err.filename or "standard output or another file", err)
    return None


def _output_code(failure: OSError) -> int:
    if isinstance(failure, BrokenPipeError):
        return EXIT_PIPE_CLOSED
    return _cannot_write("standard output", failure)


def _cannot_write(what: str, err: OSError) -> int:
    why = "the disk is full" if err.errno == errno.ENOSPC else err.strerror
    _tell_error(
        f"cannot write {what}: {why}; free some space, or write to another place, and run again"
    )
    return EXIT_OUTPUT


def _memory_failed(chain: list[BaseException]) -> int | None:
    for err in chain:
        if lacks_memory(err):
            detail = f" ({_first_line(err)})" if str(err) else ""
            _tell_error(
                f"there is too little memory{detail}; close other programs, or raise the memory "
                "limit of this process (ulimit -v), and run the command again"
            )
            return EXIT_DEFECT
    return None


def _import_failed(err: BaseException) -> int | None:
    """Return the exit code if a package cannot be loaded."""
    if type(err).__name__ == "ErrorDuringImport" and isinstance(
        getattr(err, "value", None), BaseException
    ):
        # HyperPyYAML finds classes with pydoc, which wraps the exception of an import
        err = err.value  # type: ignore[attr-defined]
    package = _package_at_fault(err)
    if package is None:
        return None
    from nip_audio.installation import import_remedy

    if isinstance(err, ModuleNotFoundError):
        said = f"the package {package} is not installed ({_first_line(err)})"
    else:
        said = f"the package {package} cannot be loaded ({type(err).__name__}: {_first_line(err)})"
    _tell_error(f"{said}; run nip-audio doctor to find the cause, then {import_remedy(package)}")
    return EXIT_DEFECT


def _is_a_defect(err: BaseException) -> int:
    import traceback

    _tell("".join(traceback.format_exception(err)).rstrip())
    if isinstance(err, SystemExit):
        _tell_error(f"a library ended the program with {err.code!r}; please report this defect")
    else:
        _tell_error("this is a defect of nip-audio; please report it with the text above")
    return EXIT_DEFECT


def _package_at_fault(err: BaseException) -> str | None:
    """Return the package whose import was in progress last; None if there was none.

    A broken package can raise any exception, not only ``ImportError``: an OSError of the dynamic
    linker, or a RuntimeError because of a missing operator.
    """
    package: str | None = None
    trace = err.__traceback__
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        if not module.startswith("importlib."):
            if module.partition(".")[0] == "nip_audio":
                package = None  # exceptions raised by our own code are no package's fault
            package = _imported_at(trace.tb_frame.f_code, trace.tb_lasti, module) or package
        trace = trace.tb_next
    if isinstance(err, ImportError) and err.name is not None:
        named = err.name.partition(".")[0]
        package = named if package is None or isinstance(err, ModuleNotFoundError) else package
    return None if package == "nip_audio" else package


def _imported_at(code: CodeType, offset: int, module: str) -> str | None:
    """Return the package that the instruction imports from; None if it imports nothing."""
    import dis

    before: list[object] = []
    for instruction in dis.get_instructions(code):
        if instruction.offset == offset:
            if instruction.opname != "IMPORT_NAME":
                return None
            level = before[-2]
            relative = isinstance(level, int) and level > 0
            return (module if relative else str(instruction.argval)).partition(".")[0]
        before.append(instruction.argval)
    return None


def _first_line(err: BaseException) -> str:
    return str(err).strip().partition("\n")[0]


def _flush_error(stream: TextIO | None) -> OSError | None:
    """Return why a stream cannot be written; a failed write stays in its buffer and fails again."""
    try:
        if stream is not None:
            stream.flush()
    except OSError as err:
        return err
    except ValueError:  # it was closed
        pass
    return None


def _reader_is_gone() -> bool:
    """Tell whether standard output is a closed pipe; needed where it is not buffered."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):
        return False


def _silence(stream: TextIO | None) -> None:
    """Discard what is left in a stream's buffer; Python would complain about it at exit."""
    try:
        if stream is not None:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
    except (OSError, ValueError):
        return


def _tell_error(text: str) -> None:
    colours = sys.stderr is not None and sys.stderr.isatty() and "NO_COLOR" not in os.environ
    word = "\x1b[1;31merror:\x1b[0m" if colours else "error:"
    _tell(f"{word} {printable(in_options(text))}")


def _tell(text: str) -> None:
    try:
        if sys.stderr is not None:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()
    except (OSError, ValueError):
        return  # nobody reads it; the exit code carries the same information


def in_options(text: str) -> str:
    """Name options where the library names the arguments of its functions, between backquotes.

    Example:
        >>> in_options("pass `force=True`, `eps=0.1` or another `data_root`")
        'pass --force, --eps 0.1 or another --data-root'
    """
    return _ARGUMENT.sub(_option, text)


def _option(found: re.Match[str]) -> str:
    name, value = found.groups()
    option = f"--{name.replace('_', '-')}"
    return option if value in (None, "True") else f"{option} {value}"


def printable(text: str) -> str:
    """Replace control characters, which a terminal would obey, by escape sequences."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
