"""Types into a program that runs on a terminal, and changes the terminal's size.

Usage: terminal.py exec|run|terminated COMMAND...; the exit code is the command's. What is `terminated` is what the
command, a shell, has started.
"""

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

DEADLINE = 90


class Terminal:
    def __init__(self, command, rows, columns):
        self.process, self.controller = pty.fork()
        if self.process == 0:
            self.controller = 0
            self.resize(rows, columns)
            os.execvp(command[0], command)
        self.seen = ""

    def resize(self, rows, columns):
        fcntl.ioctl(self.controller, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def types(self, text):
        self.seen = ""
        os.write(self.controller, text.encode())

    def shows(self, text, seconds=DEADLINE):
        """Whether the text comes in time."""
        until = time.monotonic() + seconds
        while text not in self.seen:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.controller], [], [], left)[0]:
                return False
            try:
                self.seen += os.read(self.controller, 4096).decode(errors="replace")
            except OSError:
                return False
        return True

    def must_show(self, text):
        if not self.shows(text):
            sys.exit(f"no {text!r} in {self.seen!r}")

    def types_until(self, text, shown, before=""):
        """Types the same again and again until something shows."""
        for _ in range(60):
            if before:
                self.types(before)
                self.shows("# ", 1)
            self.types(text)
            if self.shows(shown, 1):
                return
        sys.exit(f"never {shown!r} after {text!r}: {self.seen!r}")

    def exit_code(self):
        while self.shows("\0", 1):
            pass
        _, status = os.waitpid(self.process, 0)
        return os.waitstatus_to_exitcode(status)


kind, command = sys.argv[1], sys.argv[2:]
terminal = Terminal(command, 31, 97)
if kind == "run":
    terminal.must_show("try pressing enter")
for size in ["31 97", "40 120"]:
    rows, columns = size.split()
    terminal.resize(int(rows), int(columns))
    # The shell hears of the size a moment later.
    terminal.types_until("stty size\n", size)
terminal.types("echo $TERM on $(tty)\n")
terminal.must_show("xterm on /dev/pts/0")
if kind == "terminated":
    children = f"/proc/{terminal.process}/task/{terminal.process}/children"
    with open(children) as file:
        os.kill(int(file.read().split()[0]), signal.SIGTERM)
    sys.exit(terminal.exit_code())
terminal.types("sleep 1000\n")
terminal.must_show("sleep 1000")
# The shell may not yet have started what is to be interrupted; and what is typed before its prompt is back is lost with
# what was interrupted, as on any terminal.
terminal.types_until("echo woken$((40 + 2))\n", "woken42", before="\x03")
terminal.types("exit 5\n")
sys.exit(terminal.exit_code())
