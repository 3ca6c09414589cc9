"""Programs that are killed (SIGKILL) at a line of chosen files, again and again, and started again each time."""

import os
import random
import signal
import sys
import traceback
from collections.abc import Callable, Collection
from pathlib import Path

Line = tuple[str, int]


def run_killed(program: Callable[[], object], files: Collection[Path], at: Callable[[Line], bool]) -> Line | None:
    """Run a program in a forked child, which kills itself before the first line of `files` that `at` wants; return
    that line, or None if the program ended first."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reader)
            _kill_at({str(path) for path in files}, at, writer)
            program()
            sys.settrace(None)
        except BaseException:
            os.write(writer, traceback.format_exc().encode())
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, f"the program ended by signal {os.WTERMSIG(status)}"
        name, _, number = said.rpartition(":")
        return name, int(number)
    assert not status, said
    return None


def kill_at_every_line(
    program: Callable[[], object], files: Collection[Path], begin: Callable[[], None], end: Callable[[], None]
) -> set[Line]:
    """Kill a program once before each line that it ever runs, one after another; return the lines.

    A program that was killed is started again, and killed at the next line that was not yet tried, until it ends:
    then `end` looks at what it made, `begin` removes it, and all begins anew, until no line is left.
    """
    tried: set[Line] = set()
    while True:
        begin()
        before = len(tried)
        while line := run_killed(program, files, lambda line: line not in tried):
            tried.add(line)
        end()
        if len(tried) == before:
            return tried


def kill_at_random(
    program: Callable[[], object], files: Collection[Path], begin: Callable[[], None], end: Callable[[], None],
    kills: int, lines: int,
) -> int:
    """The same, with each kill after a random number of lines, less than `lines`, until there were so many; return how
    many times the program ended."""
    chance, killed, ended = random.Random(0), 0, 0
    while killed < kills:
        begin()
        while True:
            left = iter(range(chance.randrange(lines) if killed < kills else sys.maxsize))
            if not run_killed(program, files, lambda line: next(left, None) is None):
                break
            killed += 1
        end()
        ended += 1
    return ended


def kill_beside_a_worker(
    program: Callable[[], object], files: Collection[Path], line: Line, again: Callable[[], None],
) -> bool:
    """Run a program that forks workers, of which the first that comes to a line kills the program and stands still;
    call `again`, let the worker go on to its end, and return True. Or False if none came there."""
    reader, writer = os.pipe()
    parent = os.fork()
    if not parent:
        wanted, parent = {line}, os.getpid()

        def stand_still(found: Line) -> bool:
            if found in wanted:
                wanted.clear()
                os.write(writer, str(os.getpid()).encode())
                os.kill(parent, signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGSTOP)
            return False

        os.close(reader)
        _kill_at({str(path) for path in files}, stand_still, writer)
        program()
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(parent, 0)
    with open(reader, "rb", buffering=0) as pipe:  # open as long as the worker lives
        if not os.WIFSIGNALED(status):
            return False
        worker = int(pipe.read(100))
        try:
            again()
        finally:
            os.kill(worker, signal.SIGCONT)
        assert not pipe.read()
    return True


def _kill_at(files: Collection[str], at: Callable[[Line], bool], writer: int) -> None:
    """From here on, kill this process before the first line of some files that is wanted, and tell it before."""
    def in_frame(frame, event, argument):
        if event == "line" and at((frame.f_code.co_filename, frame.f_lineno)):
            os.write(writer, f"{frame.f_code.co_filename}:{frame.f_lineno}".encode())
            os.kill(os.getpid(), signal.SIGKILL)
        return in_frame

    sys.settrace(lambda frame, event, argument: in_frame if frame.f_code.co_filename in files else None)
