// SPDX-License-Identifier: Apache-2.0
// SharedArena: memory that one process writes into and another reads, for the tensors on their way between them.
//
// It is of one size for its whole life, so that neither side ever maps it anew; pages cost memory when they are
// written to. Allocate goes forward through it; Reset begins again.
// Ownership: owns the memory and its descriptor. Thread-safety: none; the session's lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "core/status.h"

namespace gristmill {

class SharedArena {
 public:
  static constexpr size_t kSizeBytes = size_t{16} << 30;
  static constexpr size_t kAlignment = 64;

  static Status Create(std::unique_ptr<SharedArena>* arena, size_t size_bytes = kSizeBytes);
  ~SharedArena();
  SharedArena(const SharedArena&) = delete;
  SharedArena& operator=(const SharedArena&) = delete;

  int fd() const { return fd_; }

  /// Null when there is no room.
  std::byte* Allocate(size_t size_bytes);
  uint64_t OffsetOf(const std::byte* allocated) const { return static_cast<uint64_t>(allocated - bytes_); }

  /// Lets go of all that was allocated, and gives back memory beyond what a batch commonly takes.
  void Reset();

  /// What the other process says that it has written; false if that lies outside.
  bool View(uint64_t offset, uint64_t size_bytes, std::span<const std::byte>* view) const;

 private:
  SharedArena(int fd, std::byte* bytes, size_t size_bytes) : fd_(fd), bytes_(bytes), size_bytes_(size_bytes) {}

  const int fd_;
  std::byte* const bytes_;
  const size_t size_bytes_;
  size_t used_ = 0;
};

}  // namespace gristmill
