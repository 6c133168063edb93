// SPDX-License-Identifier: Apache-2.0
#include "transport/socket.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

namespace gristmill {

Socket::~Socket() { close(fd_); }

IoOutcome Socket::Receive(std::span<std::byte> buffer, size_t* size) const {
  const ssize_t result = recv(fd_, buffer.data(), buffer.size(), 0);
  *size = result > 0 ? static_cast<size_t>(result) : 0;
  if (result > 0) return IoOutcome::kDone;
  const bool is_blocked = result < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
  return is_blocked ? IoOutcome::kBlocked : IoOutcome::kClosed;
}

IoOutcome Socket::Read(std::span<std::byte> scratch, std::span<const std::byte>* bytes) {
  size_t size = 0;
  const IoOutcome outcome = Receive(scratch, &size);
  *bytes = scratch.first(size);
  return outcome;
}

}  // namespace gristmill
