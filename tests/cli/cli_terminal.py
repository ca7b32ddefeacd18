"""A terminal for a program under test: what it shows can be read, and keys can be typed."""

import errno
import fcntl
import os
import pty
import select
import termios
import time


def _take_terminal():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A program with a pseudo-terminal as its standard streams and its controlling terminal."""

    def __init__(self, start, *words, **facts):
        self._ours, theirs = pty.openpty()
        self.process = start(
            *words,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=_take_terminal,
            **facts,
        )
        os.close(theirs)
        self._seen = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._ours)

    def type(self, keys):
        """Press keys, as late as a person would: the program waits for them, or for its provider."""
        time.sleep(0.3)
        os.write(self._ours, keys.encode())

    def wait_for(self, text, seconds=20):
        """Read until the text is shown; what was shown before it is forgotten."""
        deadline = time.monotonic() + seconds
        while text not in self._seen:
            if not self._read(deadline - time.monotonic()):
                raise AssertionError(f"{text!r} was never shown, only {self._seen!r}")
        self._seen = self._seen.partition(text)[2]

    def rest(self):
        """All that is shown until the program is gone."""
        while self._read(2):
            pass
        return self._seen

    def _read(self, seconds):
        if not select.select([self._ours], [], [], max(0, seconds))[0]:
            return False
        try:
            data = os.read(self._ours, 65536)
        except OSError as error:
            if error.errno != errno.EIO:  # what Linux says when the other end is gone
                raise
            data = b""
        self._seen += data.decode("utf-8", "replace")
        return bool(data)
