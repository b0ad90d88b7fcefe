"""Memory of this process: return freed arrays to the system at once, and limit what the process may take."""

import ctypes
import resource
from contextlib import suppress
from pathlib import Path

# Number of the parameter in glibc's malloc.h, and its value in bytes.
_M_MMAP_THRESHOLD, _LEAST_BLOCK = -3, 256 * 1024


def return_large_blocks() -> bool:
    """Let glibc give every freed block of 256 KiB or more back to the system.

    By default, glibc keeps freed blocks of up to 32 MiB after the first of that size. A program that reads large tables
    then stays large.

    Returns:
        Whether the C library has this setting.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LEAST_BLOCK))
    except (AttributeError, OSError, TypeError):
        return False


def limit_memory(size: int) -> None:
    """Allow this process so much more memory than it has now. macOS has no such limit.

    Args:
        size: Bytes of address space.
    """
    with suppress(OSError, ValueError):
        now = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        limits = [now + size, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
        resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
