"""The walls around a submission, put up in its own process before its first cell runs.

Limits of memory, processor time and file size hold on every system. On Linux the kernel holds three more: no
capabilities, no file outside the libraries and the temporary folder (Landlock), no process, socket or signal to
others (seccomp). An audit hook inside Python repeats what they say in clear words; alone it stops accidents and
simple attempts, not an expert.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

UNIMPORTABLE = {"vae_lib": "write what is asked yourself", "grading": "the grader stays outside"}
REFUSED = {
    "socket.": "the network",
    "urllib.Request": "the network",
    "http.client.": "the network",
    "subprocess.": "starting a process",
    "os.system": "starting a process",
    "os.fork": "starting a process",
    "os.exec": "starting a process",
    "os.spawn": "starting a process",
    "os.posix_spawn": "starting a process",
    "pty.": "starting a process",
    "os.kill": "a signal to a process",
    "signal.pthread_kill": "a signal to a process",
    "ctypes.": "calling machine code through ctypes",
    "resource.": "changing the limits",
    "sqlite3.": "a database",
}
CHANGES = (
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.ch", "os.utime"),
    *("os.setxattr", "os.removexattr"),
)
LOOKS = ("os.listdir", "os.scandir")

# Numbers of system calls: x86_64, aarch64. What starts or touches another process, opens a socket, changes namespaces,
# holds memory that no limit counts, or changes the rights and times of files, which Landlock leaves alone.
CALLS = {
    **dict(fork=(57, None), vfork=(58, None), execve=(59, 221), execveat=(322, 281), socket=(41, 198)),
    **dict(ptrace=(101, 117), process_vm_readv=(310, 270), process_vm_writev=(311, 271), kill=(62, 129)),
    **dict(tkill=(200, 130), tgkill=(234, 131), rt_sigqueueinfo=(129, 138), rt_tgsigqueueinfo=(297, 240)),
    **dict(pidfd_open=(434, 434), pidfd_send_signal=(424, 424), pidfd_getfd=(438, 438), setpriority=(141, 140)),
    **dict(io_uring_setup=(425, 425), unshare=(272, 97), setns=(308, 268), mount=(165, 40), umount2=(166, 39)),
    **dict(pivot_root=(155, 41), chroot=(161, 51), bpf=(321, 280), userfaultfd=(323, 282), keyctl=(250, 219)),
    **dict(perf_event_open=(298, 241), memfd_create=(319, 279), memfd_secret=(447, 447), shmget=(29, 194)),
    **dict(sched_setaffinity=(203, 122), sched_setscheduler=(144, 119), sched_setparam=(142, 118)),
    **dict(sched_setattr=(314, 274), mq_open=(240, 180), add_key=(248, 217), request_key=(249, 218)),
    **dict(msgget=(68, 186), semget=(64, 190)),
    **dict(chmod=(90, None), fchmod=(91, 52), fchmodat=(268, 53), fchmodat2=(452, 452), chown=(92, None)),
    **dict(fchown=(93, 55), lchown=(94, None), fchownat=(260, 54), utime=(132, None), utimes=(235, None)),
    **dict(futimesat=(261, None), utimensat=(280, 88), setxattr=(188, 5), lsetxattr=(189, 6), fsetxattr=(190, 7)),
    **dict(removexattr=(197, 14), lremovexattr=(198, 15), fremovexattr=(199, 16)),
}
# Calls that are refused with some second arguments: those by which a file sends signals to a process of one's choice.
PARTLY = {"fcntl": ((72, 25), (8, 10, 15)), "ioctl": ((16, 29), (0x8901, 0x8902))}
MACHINES = {"x86_64": (0, 0xC000003E, 56, 302, 317), "aarch64": (1, 0xC00000B7, 220, 261, 277)}


def close_doors(folder: Path, *, memory: int, seconds: int, file_size: int) -> list[str]:
    """Put up every wall that this system has; return the names of those of the kernel.

    ``memory`` is what the process may take beyond what it holds now, in bytes; ``folder`` the one it may write to.
    """
    libraries = library_folders()
    held = []
    limit_resources(memory, seconds, file_size)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(38, 1, 0, 0, 0)  # no new privileges: what the next three ask for
        walls = {
            "files": landlock(libc, libraries, folder),
            "calls": seccomp(libc),
            "capabilities": drop_capabilities(libc),
        }
        held = [name for name, stands in walls.items() if stands]
    sys.addaudithook(hook(libraries, folder))
    return held


def die_with_parent() -> None:
    """Let the kernel end this process when its parent ends: a submission does not outlive its grader."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)


def library_folders() -> list[Path]:
    """Return what an import may read: the interpreter's libraries and the system's."""
    installed = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    prefixes = [f"{prefix}/{name}" for prefix in (sys.prefix, sys.base_prefix) for name in ("lib", "lib64")]
    system = ["/usr/lib", "/lib", "/lib64", "/usr/share/fonts", "/usr/share/zoneinfo", "/dev/null", "/dev/urandom"]
    return [Path(path).resolve() for path in (*installed, *prefixes, *system) if Path(path).exists()]


def limit_resources(memory: int, seconds: int, file_size: int) -> None:
    """Limit memory, processor time, files; no core dumps."""
    statm = Path("/proc/self/statm")
    held = int(statm.read_text().split()[0]) * resource.getpagesize() if statm.exists() else 0
    for what, limit in [
        (resource.RLIMIT_AS, held + memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, file_size),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 256),
    ]:
        try:
            resource.setrlimit(what, (limit, limit))
        except (ValueError, OSError):  # macOS knows no RLIMIT_AS
            continue


def landlock(libc: ctypes.CDLL, libraries: list[Path], folder: Path) -> bool:
    """Let the kernel refuse every file but the libraries, to read, and the folder."""
    version = libc.syscall(444, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    files = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    network, signals = (3 if version >= 4 else 0), (3 if version >= 6 else 0)
    asked = (ctypes.c_uint64 * 3)(files, network, signals)
    rules = libc.syscall(444, ctypes.byref(asked), ctypes.c_size_t(8 * (1 + (version >= 4) + (version >= 6))), 0)
    if rules < 0:
        return False
    for path, wanted in [*((path, 0b1101) for path in libraries), (folder, files & ~1)]:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)  # of a single file one may read and write, no more
        rule = (wanted if path.is_dir() else 0b110).to_bytes(8, "little") + place.to_bytes(4, "little")
        libc.syscall(445, rules, 1, rule, 0)
        os.close(place)
    held = libc.syscall(446, rules, 0)
    os.close(rules)
    return bool(held == 0)


def seccomp(libc: ctypes.CDLL) -> bool:
    """Let the kernel refuse the calls of `CALLS`, new processes, and limits of others. Threads stay allowed."""
    if platform.machine() not in MACHINES:
        return False
    column, machine, clone, prlimit, call = MACHINES[platform.machine()]
    refuse, absent, allow = (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x50000 | 38), (0x06, 0, 0, 0x7FFF0000)
    program = [(0x20, 0, 0, 4), (0x15, 1, 0, machine), refuse, (0x20, 0, 0, 0), (0x35, 0, 1, 0x40000000), refuse]
    for numbers in CALLS.values():
        if (number := numbers[column]) is not None:
            program += [(0x15, 0, 1, number), refuse]
    for numbers, second in PARTLY.values():
        program += [(0x15, 0, len(second) + 3, numbers[column]), (0x20, 0, 0, 24)]
        program += [(0x15, len(second) - at, int(at == len(second)), what) for at, what in enumerate(second, 1)]
        program += [refuse, allow]
    program += [(0x15, 0, 1, 435), absent]  # clone3: the C library then takes clone, whose flags can be read
    program += [(0x15, 0, 4, clone), (0x20, 0, 0, 16), (0x45, 1, 0, 0x10000), refuse, allow]
    program += [(0x15, 0, 4, prlimit), (0x20, 0, 0, 16), (0x15, 1, 0, 0), refuse, allow]
    program.append(allow)
    code = b"".join(
        step[0].to_bytes(2, "little") + bytes(step[1:3]) + step[3].to_bytes(4, "little") for step in program
    )

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))

    return bool(libc.syscall(call, 1, 1, ctypes.byref(Program(len(program), code))) == 0)


def drop_capabilities(libc: ctypes.CDLL) -> bool:
    """Take from a grader that runs as root what would let a submission lift its own limits."""
    version = (ctypes.c_uint32 * 2)(0x20080522, 0)
    return bool(libc.capset(ctypes.byref(version), ctypes.byref((ctypes.c_uint32 * 6)())) == 0)


def hook(libraries: list[Path], folder: Path) -> Callable[[str, tuple[Any, ...]], None]:
    """Return the audit hook: one clear line for whatever is refused."""
    readable = (*map(str, libraries), str(folder))
    real, join, home = os.path.realpath, os.path.join, str(folder)
    known: dict[str, str] = {}

    def inside(path: Any, folders: tuple[str, ...]) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return True  # a file that is open already
        found = os.fsdecode(real(path))
        return any(found == place or found.startswith(join(place, "")) for place in folders)

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "import":
            name = str(arguments[0]).partition(".")[0]
            if name in UNIMPORTABLE:
                raise ImportError(f"{name} cannot be imported where submissions are graded: {UNIMPORTABLE[name]}")
        elif event == "open":
            path, mode, flags = arguments
            writes = any(sign in (mode or "") for sign in "wax+") or (flags or 0) & (os.O_WRONLY | os.O_RDWR)
            if not inside(path, (home, "/dev/null") if writes else readable):
                raise PermissionError(f"the grader lets a submission open no file but its own: {path}")
        elif event.startswith(CHANGES) or event in LOOKS:
            if not all(inside(path, readable if event in LOOKS else (home,)) for path in arguments):
                verb = "list no folder" if event in LOOKS else "change no file"
                raise PermissionError(f"the grader lets a submission {verb} but its own ({event})")
        else:
            if event not in known:  # remembered: some events come with every call of id()
                known[event] = next((what for start, what in REFUSED.items() if event.startswith(start)), "")
            if known[event]:
                raise PermissionError(f"the grader refuses {known[event]} ({event})")

    return refuse
