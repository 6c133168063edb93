// SPDX-License-Identifier: Apache-2.0
#include "backends/python/shared_arena.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

namespace gristmill {
namespace {

/// What stays mapped between batches.
constexpr size_t kKeptBytes = size_t{64} << 20;

Status SystemError(const char* what) {
  return ResourceExhausted(std::string("cannot share memory with a worker process: ") + what + ": " + strerror(errno));
}

}  // namespace

Status SharedArena::Create(std::unique_ptr<SharedArena>* arena, size_t size_bytes) {
  const int fd = memfd_create("gristmill", MFD_CLOEXEC);
  if (fd < 0) return SystemError("memfd_create");
  if (ftruncate(fd, static_cast<off_t>(size_bytes)) != 0) {
    const Status status = SystemError("ftruncate");
    close(fd);
    return status;
  }
  void* bytes = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (bytes == MAP_FAILED) {
    const Status status = SystemError("mmap");
    close(fd);
    return status;
  }
  madvise(bytes, size_bytes, MADV_DONTDUMP);
  arena->reset(new SharedArena(fd, static_cast<std::byte*>(bytes), size_bytes));
  return Status::Ok();
}

SharedArena::~SharedArena() {
  munmap(bytes_, size_bytes_);
  close(fd_);
}

std::byte* SharedArena::Allocate(size_t size_bytes) {
  if (size_bytes > size_bytes_ - used_) return nullptr;
  std::byte* const allocated = bytes_ + used_;
  used_ = std::min((used_ + size_bytes + kAlignment - 1) / kAlignment * kAlignment, size_bytes_);
  return allocated;
}

void SharedArena::Reset() {
  if (used_ > kKeptBytes) madvise(bytes_ + kKeptBytes, used_ - kKeptBytes, MADV_REMOVE);
  used_ = 0;
}

bool SharedArena::View(uint64_t offset, uint64_t size_bytes, std::span<const std::byte>* view) const {
  if (offset > size_bytes_ || size_bytes > size_bytes_ - offset) return false;
  *view = {bytes_ + offset, static_cast<size_t>(size_bytes)};
  return true;
}

}  // namespace gristmill
