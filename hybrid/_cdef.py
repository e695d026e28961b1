"""Writes the C source of ``hybrid._native``, the cffi API-mode module over libhybrid.

What Python sees is read from the C headers themselves (preprocessed with
``HY_CDEF``, which leaves out includes and attributes), so no declaration is
written twice. Run by meson: ``_cdef.py OUTPUT COMPILER SELF HEADER...``.
"""

import subprocess
import sys
from pathlib import Path

from cffi import FFI


def declarations(compiler: str, header: Path) -> str:
    """The declarations of one header, without those of the headers that it includes."""
    text = header.read_text()
    own = "\n".join(line for line in text.splitlines() if not line.startswith("#include"))
    command = [compiler, "-E", "-P", "-DHY_CDEF", "-DHY_API=", "-x", "c", "-"]
    done = subprocess.run(command, input=own, capture_output=True, text=True, check=True)
    return done.stdout


def main() -> None:
    output, compiler, _self, *headers = sys.argv[1:]
    paths = [Path(h) for h in headers]
    ffi = FFI()
    for path in paths:
        ffi.cdef(declarations(compiler, path))
    includes = "\n".join(f'#include "{p.parent.name}/{p.name}"' for p in paths)
    ffi.set_source("hybrid._native", includes)
    ffi.emit_c_code(output)


if __name__ == "__main__":
    main()
