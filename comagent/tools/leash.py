"""Runs one program, and ends it with all that it has started when whoever asked for it is gone.

A script of its own: `python -I -S leash.py LEASH FOLDER PROGRAM NAME ARGUMENT...`, started as the leader of a session.
LEASH is a descriptor of one end of a socket pair. When the other end closes, the process group is killed. What is
written to it is the program's exit code, negative for a signal; before it `!` and a reason if it could not be started.
FOLDER is a descriptor of the folder in which the program runs.
"""

import _thread
import os
import signal
import sys
from typing import NoReturn


def run(leash: int, folder: int, program: str, *, command: list[str]) -> NoReturn:
    """Ends with the whole process group, this process included."""
    os.set_inheritable(leash, False)
    os.set_inheritable(folder, False)
    # A program that sends a signal to its whole group must not end what is to end the group.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    child = os.fork()
    if child == 0:
        _become(leash, folder, program, command=command)
    _thread.start_new_thread(_end_with, (leash,))
    _, status = os.waitpid(child, 0)
    os.write(leash, b"%d" % os.waitstatus_to_exitcode(status))
    os.killpg(0, signal.SIGKILL)
    os._exit(0)


def _become(leash: int, folder: int, program: str, *, command: list[str]) -> NoReturn:
    try:
        # Python ignores these, and what is ignored stays so in the program.
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.fchdir(folder)
        os.execv(program, command)
    except OSError as error:
        os.write(leash, f"!{error.strerror}!".encode())
    os._exit(127)


def _end_with(leash: int) -> None:
    try:
        os.read(leash, 1)
    finally:
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    run(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], command=sys.argv[4:])
