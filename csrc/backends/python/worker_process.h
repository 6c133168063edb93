// SPDX-License-Identifier: Apache-2.0
// WorkerProcess: a child process of the server's, in a group of its own, with the descriptors that it is given.
//
// It ends when the server does, however that ends: the other end of one of its descriptors is then closed.
// Thread-safety: Kill from any thread; everything else on one at a time.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "core/clock.h"
#include "core/mutex.h"
#include "core/status.h"

namespace gristmill {

class WorkerProcess {
 public:
  WorkerProcess() = default;
  ~WorkerProcess();
  WorkerProcess(const WorkerProcess&) = delete;
  WorkerProcess& operator=(const WorkerProcess&) = delete;

  /// Starts `arguments`, the program first. Descriptor i of `fds` becomes descriptor 3 + i of the child, whose standard
  /// output is the server's standard error. kUnavailable if that cannot be done.
  Status Start(const std::vector<std::string>& arguments, const std::vector<int>& fds);

  /// It and all processes that it has started.
  void Kill();

  /// Waits for its end, for at most `grace_ns`, then kills it. In words: "ended with status 1".
  std::string End(Clock& clock, int64_t grace_ns);

 private:
  Mutex mu_;
  pid_t pid_ GUARDED_BY(mu_) = -1;  // not after it has been waited for, when it may be another's
};

}  // namespace gristmill
