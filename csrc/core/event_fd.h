// SPDX-License-Identifier: Apache-2.0
// EventFd: wakes whoever waits on a descriptor.
//
// Thread-safety: Signal from any thread; everything else on one.
#pragma once

#include "core/status.h"

namespace gristmill {

class EventFd {
 public:
  EventFd() = default;
  ~EventFd();
  EventFd(const EventFd&) = delete;
  EventFd& operator=(const EventFd&) = delete;

  /// kResourceExhausted if the process has no file descriptor left.
  Status Open();

  /// -1 before Open.
  int fd() const { return fd_; }

  /// Makes it readable, until Clear.
  void Signal();
  void Clear();

 private:
  int fd_ = -1;
};

}  // namespace gristmill
