// SPDX-License-Identifier: Apache-2.0
#include "backends/python/python_instance.h"

#include <algorithm>
#include <utility>

#include "backends/plugin.h"

namespace gristmill {
namespace {

constexpr int64_t kShortestPauseNs = 100'000'000;
constexpr int64_t kLongestPauseNs = 10'000'000'000;

}  // namespace

PythonInstance::~PythonInstance() {
  if (session_ != nullptr) session_->Stop(options_.finalize_limit_ns);
}

Status PythonInstance::Start() { return WorkerSession::Start(options_.worker, &session_); }

Status PythonInstance::Restart() {
  Clock& clock = *options_.worker.clock;
  if (clock.NowNs() < next_start_ns_) return failed_start_;
  if (session_ != nullptr) session_->Stop(0);
  session_.reset();
  if (const Status status = Start(); !status.ok()) {
    pause_ns_ = std::clamp(2 * pause_ns_, kShortestPauseNs, kLongestPauseNs);
    next_start_ns_ = clock.NowNs() + pause_ns_;
    failed_start_ = Unavailable("the worker process of model '" + options_.worker.config.name +
                                "' has died and cannot be started again: " + status.message());
    return failed_start_;
  }
  pause_ns_ = 0;
  return Status::Ok();
}

Status PythonInstance::Execute(const Batch& batch, BatchResult* result) {
  return StopExceptions([&]() -> Status {
    Clock& clock = *options_.worker.clock;
    if (session_ == nullptr || session_->is_dead()) {
      if (Status status = Restart(); !status.ok()) return status;
    }
    result->outputs.clear();
    result->gather_start_ns = result->execute_start_ns = clock.NowNs();
    const Status status = session_->Execute(batch, options_.execution_limit_ns, &result->items);
    result->execute_end_ns = clock.NowNs();
    return status;
  });
}

}  // namespace gristmill
