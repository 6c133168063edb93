// SPDX-License-Identifier: Apache-2.0
// PythonInstance: a model in Python as the engine sees it. Behind it is a worker process; when that dies, another takes
// its place at the next batch.
//
// Errors: an exception in the model's execute, or the death of its worker, fails the batch; the engine then runs its
// halves again, so that in the end only the request to blame is failed.
#pragma once

#include <memory>

#include "backends/python/worker_session.h"
#include "core/backend.h"

namespace gristmill {

struct PythonInstanceOptions {
  WorkerOptions worker;
  int64_t execution_limit_ns = 0;  // 0: none
  int64_t finalize_limit_ns = 0;
};

class PythonInstance final : public BackendInstance {
 public:
  explicit PythonInstance(PythonInstanceOptions options) : options_(std::move(options)) {}
  ~PythonInstance() override;

  /// Starts the worker.
  Status Start();

  Status Execute(const Batch& batch, BatchResult* result) override;

 private:
  Status Restart();

  const PythonInstanceOptions options_;
  std::shared_ptr<WorkerSession> session_;
  int64_t next_start_ns_ = 0;  // a worker that cannot be started is not tried all the time
  int64_t pause_ns_ = 0;
  Status failed_start_;
};

}  // namespace gristmill
