# SPDX-License-Identifier: Apache-2.0
import pytest

from bench.profile_parts import PARTS, Frame, part_of, read_samples, shares

KERNEL = "[kernel.kallsyms]"
CORE = "/venv/gristmill/_core.cpython-311-x86_64-linux-gnu.so"

SCRIPT = """gristmill-io
  ffffffff82200ff1 _raw_spin_unlock_irq ([kernel.kallsyms])
  ffffffff81e2f4fb __sys_sendmsg ([kernel.kallsyms])
            10ac4d __libc_sendmsg (/usr/lib/x86_64-linux-gnu/libc.so.6)
   1030000bfc08801 [unknown] ([unknown])

gristmill-io
             88368 gristmill::(anonymous namespace)::Decoder::DecodeInput (/venv/gristmill/_core.cpython-311.so)

gristmill
           1a144f3 [unknown] (/venv/onnxruntime/capi/libonnxruntime.so.1.32.0)

gristmill-io
             88400 gristmill::DecodeInferRequest (/venv/gristmill/_core.cpython-311.so)

"""


def test_samples_are_read_innermost_first() -> None:
    samples = list(read_samples(SCRIPT))
    assert len(samples) == 4
    assert [frame.symbol for frame in samples[0]] == [
        "_raw_spin_unlock_irq",
        "__sys_sendmsg",
        "__libc_sendmsg",
        "[unknown]",
    ]
    decode = Frame("gristmill::(anonymous namespace)::Decoder::DecodeInput", "/venv/gristmill/_core.cpython-311.so")
    assert samples[1] == [decode]


def test_shares_are_of_all_samples_in_the_order_of_parts() -> None:
    found = shares(SCRIPT)
    assert found == {"kernel: send": 0.25, "ONNX Runtime": 0.25, "gristmill: decode": 0.5}
    assert list(found) == sorted(found, key=PARTS.index)


def test_no_samples_are_an_error() -> None:
    with pytest.raises(ValueError, match="expected samples"):
        shares("")


@pytest.mark.parametrize(
    ("chain", "part"),
    [
        # A send on the loopback wakes the reader, whose epoll is no business of the sender's.
        (["ep_poll_callback", "tcp_v4_rcv", "tcp_sendmsg", "__sys_sendmsg"], "kernel: send"),
        (["_copy_to_iter", "tcp_recvmsg", "__x64_sys_recvfrom"], "kernel: receive"),
        (["finish_task_switch", "do_epoll_wait", "__x64_sys_epoll_wait"], "kernel: epoll"),
        (["_raw_spin_unlock_irqrestore", "eventfd_write", "vfs_write"], "kernel: threads wake each other"),
        (["finish_task_switch", "__x64_sys_futex"], "kernel: threads wake each other"),
        (["clear_page_erms", "asm_exc_page_fault"], "kernel: pages of memory"),
        (["unmap_page_range", "__x64_sys_munmap"], "kernel: pages of memory"),
        (["finish_task_switch", "schedule", "exit_to_user_mode_loop"], "kernel: switches between threads"),
        (["net_rx_action", "common_interrupt"], "kernel: the rest"),
    ],
)
def test_the_kernel_works_for_the_system_call_it_was_entered_by(chain: list[str], part: str) -> None:
    assert part_of([Frame(symbol, KERNEL) for symbol in chain]) == part


@pytest.mark.parametrize(
    ("symbol", "library", "part"),
    [
        ("nghttp2_hd_huff_decode", "/named/libnghttp2.so.14", "nghttp2: HPACK, in"),
        ("nghttp2_hd_deflate_hd_bufs", "/named/libnghttp2.so.14", "nghttp2: HPACK, out"),
        ("nghttp2_check_header_name", "/named/libnghttp2.so.14", "nghttp2: checks of headers"),
        ("nghttp2_session_mem_recv", "/named/libnghttp2.so.14", "nghttp2: frames, in"),
        ("nghttp2_session_mem_send_internal", "/named/libnghttp2.so.14", "nghttp2: frames, out"),
        ("nghttp2_map_find", "/named/libnghttp2.so.14", "nghttp2: streams and the rest"),
        ("_int_malloc", "/usr/lib/x86_64-linux-gnu/libc.so.6", "memory: malloc and free"),
        ("__memmove_avx512_unaligned_erms", "/usr/lib/x86_64-linux-gnu/libc.so.6", "memory: copies and comparisons"),
        ("pthread_mutex_lock", "/usr/lib/x86_64-linux-gnu/libc.so.6", "locks"),
        ("gristmill::WriteQueue::Append", CORE, "gristmill: transport"),
        ("gristmill::RequestQueue::GroupFor", CORE, "gristmill: queue and batch"),
        ("gristmill::Admission::Admit", CORE, "gristmill: admission"),
        ("gristmill::EncodeInto", CORE, "gristmill: encode"),
        ("gristmill::BufferPool::Acquire", CORE, "gristmill: buffers"),
        ("[unknown]", "/venv/gristmill_backend_onnxruntime.so", "backend: gather, bind, scatter"),
        ("[unknown]", "/venv/grpc/_cython/cygrpc.so", "gRPC core"),
        ("_PyEval_EvalFrameDefault", "/usr/bin/python3.11", "Python and uvloop"),
        ("[unknown]", "[unknown]", "the rest"),
    ],
)
def test_a_function_belongs_to_a_part(symbol: str, library: str, part: str) -> None:
    # Whoever called it: chains through libraries without frame pointers cannot be trusted.
    assert part_of([Frame(symbol, library), Frame("__sys_sendmsg", "[unknown]")]) == part
