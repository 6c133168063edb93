# SPDX-License-Identifier: Apache-2.0
"""Generate the Python package ``gristmill_protos`` from protos/*.proto.

    python scripts/generate_protos.py OUTPUT_DIRECTORY

Writes ``OUTPUT_DIRECTORY/gristmill_protos``: messages, type stubs and gRPC stubs. The messages live in a descriptor
pool of their own (``gristmill_protos.POOL``), because the wire contract fixes their names: a process that imports both
this package and another implementation of the same protocol (``tritonclient``, say) would otherwise fail on the second
import with "duplicate symbol 'inference.…'".
"""

from __future__ import annotations

import re
import sys
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

PROTO_DIRECTORY = Path(__file__).resolve().parent.parent / "protos"
PACKAGE = "gristmill_protos"

INIT = '''# SPDX-License-Identifier: Apache-2.0
"""Messages and stubs of the inference protocol, generated from protos/."""

from google.protobuf.descriptor_pool import DescriptorPool

#: The pool that holds every message of this package; hand it to the reflection service.
POOL = DescriptorPool()
'''


def generate(output_directory: Path) -> Path:
    """Generate the package and return its directory. Raises RuntimeError if protoc fails."""
    package = output_directory / PACKAGE
    package.mkdir(parents=True, exist_ok=True)
    well_known = resources.files("grpc_tools") / "_proto"
    sources = sorted(str(path) for path in PROTO_DIRECTORY.glob("*.proto"))
    arguments = [
        "protoc",
        f"-I{PROTO_DIRECTORY}",
        f"-I{well_known}",
        f"--python_out={package}",
        f"--pyi_out={package}",
        f"--grpc_python_out={package}",
        *sources,
    ]
    if protoc.main(arguments) != 0:
        raise RuntimeError(f"protoc failed on {', '.join(sources)}; its own message is above")
    for path in [*package.glob("*_pb2.py"), *package.glob("*_pb2.pyi"), *package.glob("*_pb2_grpc.py")]:
        path.write_text(_relocate(path.read_text()))
    (package / "__init__.py").write_text(INIT)
    (package / "py.typed").touch()
    return package


def _relocate(text: str) -> str:
    """Make imports relative to the package and move the messages into its own pool."""
    text = re.sub(r"^import (\w+_pb2) as", r"from . import \1 as", text, flags=re.MULTILINE)
    if "_descriptor_pool.Default()" in text:
        text = text.replace("_descriptor_pool.Default()", "_POOL")
        text = text.replace(
            "from google.protobuf import descriptor_pool as _descriptor_pool", f"from {PACKAGE} import POOL as _POOL"
        )
    return text


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(generate(Path(sys.argv[1])))
