// SPDX-License-Identifier: Apache-2.0
// A model whose every run is in the test's hands, and a sink that remembers what it was given.
#pragma once

#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/backend.h"
#include "core/infer_request.h"
#include "core/mutex.h"

namespace gristmill {

inline std::span<const std::byte> AsBytes(const std::vector<float>& values) { return std::as_bytes(std::span(values)); }

inline std::vector<float> AsFloats(std::span<const std::byte> data) {
  std::vector<float> values(data.size() / sizeof(float));
  if (!values.empty()) std::memcpy(values.data(), data.data(), data.size());
  return values;
}

/// x: FP32[-1,1] -> y: FP32[-1,1], y = x + 1. A batch with a negative x fails as a whole. Runs wait for `Open`.
class FakeModel : public BackendModel {
 public:
  static ModelConfig Config() {
    return {.name = "fake",
            .version = 3,
            .max_batch_size = 8,
            .inputs = {{"x", DataType::kFp32, {1}}},
            .outputs = {{"y", DataType::kFp32, {1}}},
            .batching = {.dynamic = true}};
  }

  explicit FakeModel(Clock* clock) : clock_(*clock) {}

  const ModelSignature& signature() const override { return signature_; }
  Status CreateInstance(const ModelConfig&, std::unique_ptr<BackendInstance>* instance) override {
    *instance = std::make_unique<Instance>(this);
    return Status::Ok();
  }

  /// Lets every run pass, now and later.
  void Open() {
    MutexLock lock(mu_);
    open_ = true;
    changed_.NotifyAll();
  }

  /// Makes every later run wait for `Open`.
  void Close() {
    MutexLock lock(mu_);
    open_ = false;
  }

  /// Blocks until `count` runs have begun.
  void AwaitRuns(size_t count) {
    MutexLock lock(mu_);
    while (batch_rows_.size() < count) changed_.Wait(mu_);
  }

  /// Of the last run that has begun.
  std::thread::id thread() {
    MutexLock lock(mu_);
    return thread_;
  }

  std::vector<int64_t> batch_rows() {
    MutexLock lock(mu_);
    return batch_rows_;
  }

 private:
  class Instance final : public BackendInstance {
   public:
    explicit Instance(FakeModel* model) : model_(*model) {}

    Status Execute(const Batch& batch, BatchResult* result) override {
      model_.Enter(batch.total_rows);
      result->gather_start_ns = result->execute_start_ns = result->execute_end_ns = model_.clock_.NowNs();
      outputs_.clear();
      if (Status status = model_.Compute(batch, &outputs_); !status.ok()) return status;
      result->outputs.clear();
      for (const auto& values : outputs_) {
        result->outputs.push_back({{DataType::kFp32, Shape{batch.total_rows, 1}, AsBytes(values)}, {}});
      }
      return Status::Ok();
    }

   private:
    FakeModel& model_;
    std::vector<std::vector<float>> outputs_;
  };

  /// Appends one vector for each output.
  virtual Status Compute(const Batch& batch, std::vector<std::vector<float>>* outputs) {
    auto& y = outputs->emplace_back();
    for (const BatchItem& item : batch.items) {
      for (float value : AsFloats(item.inputs[0].data)) {
        if (value < 0) return Internal("x must not be negative");
        y.push_back(value + 1);
      }
    }
    return Status::Ok();
  }

  void Enter(int64_t rows) {
    MutexLock lock(mu_);
    batch_rows_.push_back(rows);
    thread_ = std::this_thread::get_id();
    changed_.NotifyAll();
    while (!open_) changed_.Wait(mu_);
  }

  Clock& clock_;
  const ModelSignature signature_;
  Mutex mu_;
  CondVar changed_;
  bool open_ GUARDED_BY(mu_) = false;
  std::vector<int64_t> batch_rows_ GUARDED_BY(mu_);
  std::thread::id thread_ GUARDED_BY(mu_);
};

class FakeSink final : public ResponseSink {
 public:
  struct Answer {
    Status status;
    std::vector<float> y;
    std::string version;
  };

  void Complete(std::unique_ptr<InferRequest> request, const Status& status, const InferResponse* response) override {
    Answer answer{.status = status, .y = {}, .version = {}};
    if (response != nullptr) {
      answer.y = AsFloats(response->outputs[0].tensor.data);
      answer.version = response->model_version;
    }
    MutexLock lock(mu_);
    order_.push_back(request->ticket);
    unflushed_.emplace_back(request->ticket, std::move(answer));
  }

  void Flush() override {
    MutexLock lock(mu_);
    for (auto& [ticket, answer] : unflushed_) answers_[ticket].push_back(std::move(answer));
    unflushed_.clear();
    ++flushes_;
    changed_.NotifyAll();
  }

  /// Blocks until `count` answers have been flushed. Each ticket maps to its answers: exactly one, if all is well.
  std::map<uint64_t, std::vector<Answer>> Await(size_t count) {
    MutexLock lock(mu_);
    while (answers_.size() < count) changed_.Wait(mu_);
    return answers_;
  }

  /// Tickets, in the order of their answers.
  std::vector<uint64_t> order() {
    MutexLock lock(mu_);
    return order_;
  }

  int flushes() {
    MutexLock lock(mu_);
    return flushes_;
  }

 private:
  Mutex mu_;
  CondVar changed_;
  int flushes_ GUARDED_BY(mu_) = 0;
  std::vector<uint64_t> order_ GUARDED_BY(mu_);
  std::vector<std::pair<uint64_t, Answer>> unflushed_ GUARDED_BY(mu_);
  std::map<uint64_t, std::vector<Answer>> answers_ GUARDED_BY(mu_);
};

/// A decoded request for FakeModel; `x` must outlive it.
inline std::unique_ptr<InferRequest> MakeRequest(uint64_t ticket, ResponseSink* sink, const std::vector<float>& x) {
  auto request = std::make_unique<InferRequest>();
  request->ticket = ticket;
  request->sink = sink;
  request->model_name = "fake";
  request->inputs.push_back({"x", {DataType::kFp32, Shape{static_cast<int64_t>(x.size()), 1}, AsBytes(x)}});
  return request;
}

}  // namespace gristmill
