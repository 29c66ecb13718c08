"""A lock that keeps two processes from writing to one output directory."""

import contextlib
import json
import os
import pathlib
import platform
import sys
import threading
import time
import uuid

from lsmha_keras.errors import DirectoryInUseError
from lsmha_keras.files import named_errors, writable_dir, write_atomically

NAME = ".lsmha.lock"
# Seconds in which processes that saw the same dead holder have all written their record.
_SETTLED = 0.3


class DirectoryLock:
    """A context manager that holds a lock file, which names the process that writes to a directory.

    It only needs exclusive creation of files (`O_EXCL`), so it works on network drives without
    locks. The lock of a killed process is taken over: at once if the process ran on this machine,
    otherwise when its file has not changed for `patience` seconds; a live holder touches it every
    `interval` seconds.

    Args:
        directory: path, made if missing.
        name: str, name of the file in it.
        interval: float, seconds between two signs of life.
        patience: float, seconds without one after which a holder elsewhere counts as gone.

    Raises:
        BlockingIOError: on entering, if another process holds it; names process, machine and file.
        OSError: on entering, if the directory cannot be written to.

    Example:

    ```python
    with DirectoryLock("runs/mine") as lock:
        print(lock.path)
    ```
    """

    def __init__(self, directory, name=NAME, interval=5.0, patience=30.0):
        self.path = pathlib.Path(directory).expanduser() / name
        self.interval = interval
        self.patience = patience
        self._token = uuid.uuid4().hex
        self._stop = threading.Event()

    def __enter__(self):
        writable_dir(self.path.parent)
        while not self._create():
            holder = self._read()
            if holder is None:
                continue  # released at this moment
            if self._is_alive(holder):
                raise DirectoryInUseError(_describe(self._read() or holder, self.path))
            if self._take_over(holder):
                break
        self._thread = threading.Thread(target=self._beat, name="lsmha-lock", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join()
        # An unreachable drive, or a removed file, must not hide an error of the work itself.
        with contextlib.suppress(OSError):
            if (self._read() or {}).get("token") == self._token:
                self.path.unlink()

    def _create(self):
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        with named_errors(self.path):
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(self._record())
            except OSError:
                self.path.unlink()  # the disk is full
                raise
        return True

    def _record(self):
        record = {
            "pid": os.getpid(),
            "started": _started(os.getpid()),
            "host": platform.node(),
            "place": _place(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "command": " ".join(sys.argv)[:200],
            "token": self._token,
        }
        return json.dumps(record) + "\n"

    def _read(self):
        """Returns the holder's record: {} if it is not (yet) readable, None if there is no lock."""
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:  # its holder was killed, or is about to write it
            return {}

    def _is_alive(self, holder):
        if holder.get("place") == _place() is not None:
            return _is_running(holder["pid"], holder["started"])
        before = self._changed()
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            time.sleep(min(0.2, self.patience))
            if self._changed() != before:
                return self._changed() is not None
        return False

    def _changed(self):
        try:
            return self.path.stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def _take_over(self, holder):
        """Replaces the record of a dead process; returns whether this process now has the lock.

        If several processes do this at once, the last one gets the lock, so wait for the others.
        """
        if self._read() != holder:
            return False
        write_atomically(self.path, self._record())
        time.sleep(_SETTLED)
        return (self._read() or {}).get("token") == self._token

    def _beat(self):
        while not self._stop.wait(self.interval):
            with contextlib.suppress(OSError):  # a network drive that is away for a moment
                os.utime(self.path)


def _place():
    """Identifies the boot of the machine and the container, within which process IDs are unique."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return f"{platform.node()} {platform.system()}" if os.name == "posix" else None


def _is_running(pid, started):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    # Another process may have the same ID by now.
    return _started(pid) == started


def _started(pid):
    """Returns when a process started, in ticks; None for one that has ended, or not on Linux."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _describe(holder, path):
    return (
        f"Another process writes to {path.parent}: process {holder.get('pid')} on "
        f"{holder.get('host')} since {holder.get('since')} ({holder.get('command')}). Wait until "
        "it has ended, or choose another directory. If you know that there is no such process, "
        f"remove the file. Received: {path}"
    )
