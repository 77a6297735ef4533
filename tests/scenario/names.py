"""A resolver that a test commands, in front of the one that the daemon's libraries call.

Decides what a host name leads to, from a file that may change while the daemon runs. Must never know who asks. The
function is replaced where it stands, in the C library, so that every way to it is the real one.
"""

import subprocess
from pathlib import Path
from typing import Final

_SOURCE: Final = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int (*resolver)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    resolver real = (resolver)dlsym(RTLD_NEXT, "getaddrinfo");
    const char *path = getenv("NAMES_FILE"), *name = getenv("NAMES_OF");
    if (!path || !name || !node || strcmp(node, name)) return real(node, service, hints, found);
    FILE *file = fopen(path, "r");
    if (!file) return EAI_AGAIN;
    struct addrinfo **end = found;
    char address[64];
    *found = NULL;
    while (fscanf(file, "%63s", address) == 1)
        if (!real(address, service, hints, end))
            while (*end) end = &(*end)->ai_next;
    fclose(file);
    return *found ? 0 : EAI_NONAME;
}
"""


class Names:
    """The addresses of one name, for a daemon that gets `environment`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._file = folder / "addresses"
        self._library = folder / "names.so"
        self.name = name
        source = folder / "names.c"
        source.write_text(_SOURCE)
        build = ["cc", "-shared", "-fPIC", "-o", str(self._library), str(source), "-ldl"]
        subprocess.run(build, check=True, capture_output=True)
        self.lead_to()

    def lead_to(self, *addresses: str) -> None:
        """From now on the name has these addresses, in this order; none means that there is no such name."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text("\n".join(addresses))
        fresh.replace(self._file)

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process ask here."""
        return {
            "LD_PRELOAD": str(self._library),
            "NAMES_FILE": str(self._file),
            "NAMES_OF": self.name,
        }
