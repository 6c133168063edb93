# SPDX-License-Identifier: Apache-2.0
"""Which part of the server a sample of perf belongs to."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

#: `[unknown]` where perf knows no name.
_FRAME = re.compile(r"\s+[0-9a-f]+ (?P<symbol>.*) \((?P<library>[^()]*)\)$")
_KERNEL = "[kernel.kallsyms]"

# Of kernel frames from the way in inwards; the first that matches any pattern decides.
_SYSTEM_CALLS = (
    (r"eventfd|futex", "kernel: threads wake each other"),
    (r"sys_(send|write)|tcp_sendmsg|sock_write", "kernel: send"),
    (r"sys_(recv|read)|tcp_recvmsg|sock_read", "kernel: receive"),
    (r"epoll", "kernel: epoll"),
    (r"page_fault|sys_(mmap|munmap|madvise|brk|mremap)", "kernel: pages of memory"),
    (r"exit_to_user_mode|schedule$", "kernel: switches between threads"),
)
# Of the innermost frame: library, symbol, part; the first that matches both patterns decides.
_FUNCTIONS = (
    (r"libnghttp2", r"_hd_(huff_)?(inflate|decode)|^hd_inflate|huff_decode|decode_length", "nghttp2: HPACK, in"),
    (r"libnghttp2", r"_hd_(huff_)?(deflate|encode)|^hd_deflate|^emit_|encode_length", "nghttp2: HPACK, out"),
    (r"libnghttp2", r"_hd_|^hd_|search_static_table", "nghttp2: HPACK, its table"),
    (r"libnghttp2", r"_http_|_check_|lookup_token|parse_uint", "nghttp2: checks of headers"),
    (
        r"libnghttp2",
        r"mem_recv|_on_|^session_(call_on|process|after_header|inbound|detect)|unpack",
        "nghttp2: frames, in",
    ),
    (r"libnghttp2", r"mem_send|pack|_sent|outbound|submit|_pq_|bubble|_less|add_item|bufs?_", "nghttp2: frames, out"),
    (r"libnghttp2", r"", "nghttp2: streams and the rest"),
    (r"libc[.-]|libstdc|ld-linux", r"alloc|free|unlink_chunk|operator (new|delete)|tcache", "memory: malloc and free"),
    (r"libc[.-]", r"mem(move|cpy|set|cmp)|str(len|cmp)", "memory: copies and comparisons"),
    (r"libc[.-]", r"pthread|lll_|futex", "locks"),
    (r"\[vdso\]", r"", "clock"),
    (r"gristmill_backend", r"", "backend: gather, bind, scatter"),
    (r"libonnxruntime", r"", "ONNX Runtime"),
    (r"/_core\.", r"Decoder|DecodeInfer|WireReader|TypedContents|Utf8", "gristmill: decode"),
    (r"/_core\.", r"Encode|TensorSize|ResponseSize", "gristmill: encode"),
    (r"/_core\.", r"Buffer", "gristmill: buffers"),
    (r"/_core\.", r"WriteQueue", "gristmill: transport"),
    (
        r"/_core\.",
        r"Queue|BatchPolicy|Executor|ScatterOutputs|Statistics|Servable|Completion",
        "gristmill: queue and batch",
    ),
    (r"/_core\.", r"Admission|Admit|Engine|VersionTable|InferService|InferRequest|IndexOf", "gristmill: admission"),
    (r"/_core\.", r"Connection|Stream|MessageReader|EventLoop|TimerWheel|Transport|Header", "gristmill: transport"),
    (r"/_core\.", r"", "gristmill: the rest"),
    (r"cygrpc", r"", "gRPC core"),
    (r"python|uvloop|libuv", r"", "Python and uvloop"),
)
_REST_OF_KERNEL = "kernel: the rest"
_REST = "the rest"
#: In the order of the tables above.
PARTS = tuple(
    dict.fromkeys(
        [*(part for _, part in _SYSTEM_CALLS), _REST_OF_KERNEL, *(part for _, _, part in _FUNCTIONS), _REST],
    )
)


@dataclass(frozen=True)
class Frame:
    """A function, and the file that it is in."""

    symbol: str
    library: str


def read_samples(script: str) -> Iterator[list[Frame]]:
    """The call chain of each sample, innermost first, from `perf script -F comm,ip,sym,dso`."""
    for block in script.split("\n\n"):
        matches = (_FRAME.match(line) for line in block.splitlines())
        if frames := [Frame(match["symbol"], match["library"]) for match in matches if match]:
            yield frames


def part_of(frames: list[Frame]) -> str:
    """The part that the innermost of `frames` works for."""
    leaf = frames[0]
    if leaf.library == _KERNEL:
        for frame in reversed(frames):
            for pattern, part in _SYSTEM_CALLS:
                if frame.library == _KERNEL and re.search(pattern, frame.symbol):
                    return part
        return _REST_OF_KERNEL
    for library, symbol, part in _FUNCTIONS:
        if re.search(library, leaf.library) and re.search(symbol, leaf.symbol):
            return part
    return _REST


def shares(script: str) -> dict[str, float]:
    """The share of the samples of each part that has any. Raises ValueError without a sample."""
    counts = Counter(part_of(frames) for frames in read_samples(script))
    if not counts:
        raise ValueError("expected samples of perf, got none")
    return {part: counts[part] / counts.total() for part in PARTS if part in counts}
