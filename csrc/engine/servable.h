// SPDX-License-Identifier: Apache-2.0
// Servable: one loaded version of a model, whatever it is made of.
//
// Life: made and ready -> Enqueue, then Wake, from any thread -> Drain -> destruction (which drains if nobody has).
// Thread-safety: thread-safe. Ownership: shared by the version table and whoever enqueues.
// Blocking: Enqueue and Remove never for longer than a short lock, and Wake neither unless it may run; Drain until the
// last admitted request is answered.
//
//   switch (servable->Enqueue(&request, &status)) { … }
//   servable->Wake(MayRun::kNo);
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "core/infer_request.h"
#include "core/model_config.h"
#include "core/status.h"
#include "engine/statistics.h"

namespace gristmill {

/// Whether a thread may be used to run what does not take long, which costs less than to wake another one for it.
enum class MayRun { kNo, kYes };

class Servable {
 public:
  explicit Servable(ModelConfig config) : config_(std::move(config)), version_text_(std::to_string(config_.version)) {}
  virtual ~Servable() = default;
  Servable(const Servable&) = delete;
  Servable& operator=(const Servable&) = delete;

  enum class Admitted { kYes, kRefused, kClosed };

  /// Takes a decoded request. kYes: it has been taken and will be answered. kRefused: it is still the caller's, to be
  /// answered with `status`. kClosed: this version takes no more requests; ask the version table again.
  virtual Admitted Enqueue(std::unique_ptr<InferRequest>* request, Status* status) = 0;

  /// Gives a request that still waits here back, to be answered with `status`; else null, and it is answered anyway.
  virtual std::unique_ptr<InferRequest> Remove(const InferRequest* request, Status* status) = 0;

  /// Has what was taken since the last call run; with kYes perhaps by this thread, which then answers it as well.
  virtual void Wake(MayRun may_run) = 0;

  /// Takes no new request and answers all that were taken. May be called again, and by several threads.
  virtual void Drain() = 0;

  virtual StatisticsSnapshot statistics() const = 0;

  /// Requests taken and not yet answered.
  virtual int64_t pending() const = 0;

  const ModelConfig& config() const { return config_; }
  const std::string& version_text() const { return version_text_; }

 private:
  const ModelConfig config_;
  const std::string version_text_;
};

}  // namespace gristmill
