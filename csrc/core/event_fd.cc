// SPDX-License-Identifier: Apache-2.0
#include "core/event_fd.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>

namespace gristmill {

EventFd::~EventFd() {
  if (fd_ >= 0) close(fd_);
}

Status EventFd::Open() {
  fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (fd_ >= 0) return Status::Ok();
  return ResourceExhausted(std::string("cannot make an eventfd: ") + strerror(errno));
}

void EventFd::Signal() {
  // A non-blocking eventfd fails to count only at 2^64 - 2, which signals that are cleared never reach.
  const uint64_t one = 1;
  (void)!write(fd_, &one, sizeof one);
}

void EventFd::Clear() {
  uint64_t count = 0;
  (void)!read(fd_, &count, sizeof count);
}

}  // namespace gristmill
