"""What this process holds."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path


def rss_bytes() -> int:
    """Resident set in bytes; where the system does not tell, its peak."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return pages * os.sysconf("SC_PAGE_SIZE")
