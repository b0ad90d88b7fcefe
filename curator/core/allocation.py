"""Return the memory of freed arrays to the system at once."""

import ctypes

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
