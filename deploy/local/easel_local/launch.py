"""Turns into another program that dies with its parent and may run as another user.

Run by path as ``python -I -S launch.py PARENT_PID SIGNAL IDENTITY PROGRAM ARGS...`` with nothing
but the standard library. It replaces itself with PROGRAM, so the caller's child is PROGRAM.

IDENTITY is ``same``, ``map`` (a user namespace of Linux in which the caller is an ordinary user)
or ``UID:GID``. SIGNAL is what the kernel sends PROGRAM when the thread that started it ends; only
Linux can (PR_SET_PDEATHSIG), elsewhere `easel_local.guard` does it.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
CLONE_NEWUSER = 0x10000000  # <linux/sched.h>
MAPPED_ID = 1000  # any id but 0: programs that refuse root look only for 0
FAILED_EXIT = 125  # as env(1) and friends: the launcher failed, not the program


def map_to_ordinary_user(libc: ctypes.CDLL) -> None:
    """Enter a user namespace in which this process has the id 1000 and no privilege.

    Files of the caller look like files of that user; files of everyone else belong to nobody.
    """
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    for name, text in (
        ("setgroups", "deny"),  # the kernel asks for it before a gid_map (user_namespaces(7))
        ("uid_map", f"{MAPPED_ID} {uid} 1"),
        ("gid_map", f"{MAPPED_ID} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:  # noqa: PTH123 - keeps the launcher quick to start
            file.write(text)


def become(identity: str, libc: ctypes.CDLL) -> None:
    """Change to the identity that the caller named."""
    if identity == "same":
        return
    if identity == "map":
        map_to_ordinary_user(libc)
        return
    uid, gid = identity.split(":")
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))


def main() -> None:
    """Read the arguments, prepare this process, become the program."""
    parent, signal, identity, *program = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    become(identity, libc)  # first: a change of credentials clears the parent-death signal
    if sys.platform == "linux":
        libc.prctl(PR_SET_PDEATHSIG, int(signal), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(FAILED_EXIT)  # the parent died before the kernel was told
    os.execvp(program[0], program)  # noqa: S606 - becoming the program is what this file is for


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        print(f"launch: {error}", file=sys.stderr)
        sys.exit(FAILED_EXIT)
