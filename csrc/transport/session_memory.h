// SPDX-License-Identifier: Apache-2.0
// SessionMemory: what nghttp2 allocates for the streams and frames of one loop's connections, reused instead of given
// back: a call takes about ten small blocks, and malloc's locks and bins cost more than a list does.
//
// Life: outlives the sessions that use it. Thread-safety: its loop's thread only.
// Memory: blocks of up to 1 KiB stay in lists by size until the end; larger ones are malloc's.
#pragma once

#include <nghttp2/nghttp2.h>

#include <array>
#include <cstddef>

namespace gristmill {

class SessionMemory {
 public:
  SessionMemory();
  ~SessionMemory();
  SessionMemory(const SessionMemory&) = delete;
  SessionMemory& operator=(const SessionMemory&) = delete;

  /// For nghttp2_session_server_new3.
  nghttp2_mem* functions() { return &functions_; }

 private:
  /// Before each block.
  struct alignas(std::max_align_t) Header {
    size_t size_class;
    Header* next;  // while it is in a list
  };

  static constexpr size_t kStep = 64;
  static constexpr size_t kClasses = 16;

  void* Allocate(size_t size);
  void Release(void* block);
  void* Resize(void* block, size_t size);

  nghttp2_mem functions_;
  std::array<Header*, kClasses + 1> free_{};  // the last is never filled: blocks that are malloc's
};

}  // namespace gristmill
