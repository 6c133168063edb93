# SPDX-License-Identifier: Apache-2.0
"""What a call costs in grpc.aio on uvloop when nothing is done for it: fixed bytes in answer to any bytes.

`python -m bench.floors.aio_floor PORT REPLY` (REPLY: a file with a serialized ModelInferResponse).
"""

from __future__ import annotations

import sys
from pathlib import Path

import grpc
import grpc.aio
import uvloop


async def serve(port: int, reply: bytes) -> None:
    """Answer every ModelInfer on 127.0.0.1:`port` (0: of the system's choice) with `reply`, for ever."""

    async def infer(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return reply

    server = grpc.aio.server()
    method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(infer)
    handler = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": method})
    server.add_generic_rpc_handlers([handler])
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print(f"listening on 127.0.0.1:{bound}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Path(sys.argv[2]).read_bytes()))
