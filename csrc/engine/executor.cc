// SPDX-License-Identifier: Apache-2.0
#include "engine/executor.h"

#include <algorithm>

#include "engine/request_stream.h"

namespace gristmill {

void BatchedServable::Executor::Run() {
  FailGivenUp();
  last_run_ = {};
  if (!work_.batch.empty() && servable_.config().decoupled) {
    HandOver(work_.batch);
    work_.batch.clear();
  } else if (!work_.batch.empty()) {
    const int64_t cpu_before_ns = measures_cpu_ ? clock_.ThreadCpuNs() : 0;
    last_run_ = RunBatch(work_.batch);
    last_run_.cpu_ns = measures_cpu_ ? clock_.ThreadCpuNs() - cpu_before_ns : last_run_.duration_ns;
    measures_cpu_ = last_run_.duration_ns > servable_.short_run_ns_;
    servable_.EndTurn();
    work_.batch.clear();
  }
  FlushSinks();
}

BatchedServable::RunRecord BatchedServable::Executor::RunBatch(std::span<std::unique_ptr<InferRequest>> requests) {
  const int64_t start_ns = clock_.NowNs();
  int64_t total_rows = 0;
  for (const auto& request : requests) total_rows += request->rows;
  Status status = Execute(requests, total_rows);
  if (status.ok()) {
    Answer(requests, total_rows);
    return {.rows = total_rows, .duration_ns = clock_.NowNs() - start_ns};
  }
  if (requests.size() == 1) {
    Fail(requests, status);
  } else {
    const size_t half = requests.size() / 2;
    RunBatch(requests.first(half));
    RunBatch(requests.subspan(half));
  }
  return {};
}

void BatchedServable::Executor::HandOver(std::span<std::unique_ptr<InferRequest>> requests) {
  const int64_t start_ns = clock_.NowNs();
  int64_t total_rows = 0;
  items_.clear();
  for (auto& request : requests) {
    total_rows += request->rows;
    auto stream = std::make_shared<RequestStream>(&servable_, std::move(request), start_ns);
    const InferRequest& taken = stream->request();
    items_.push_back(
        {.inputs = taken.ordered_inputs, .rows = taken.rows, .request = &taken, .answers = std::move(stream)});
  }
  const Status status = instance_->Execute({.items = items_, .total_rows = total_rows}, &result_);
  for (const BatchItem& item : items_) {
    if (!status.ok()) item.answers->End(status);
  }
  items_.clear();  // from here on they are the model's
}

Status BatchedServable::Executor::Execute(std::span<std::unique_ptr<InferRequest>> requests, int64_t total_rows) {
  items_.clear();
  for (const auto& request : requests) {
    items_.push_back({.inputs = request->ordered_inputs, .rows = request->rows, .request = request.get()});
  }
  Status status = instance_->Execute({.items = items_, .total_rows = total_rows}, &result_);
  if (status.ok() && requests.size() > 1 && result_.items.empty()) {
    status = CheckSplittable(servable_.config(), result_, total_rows);
  }
  return status;
}

Status BatchedServable::Executor::TakeItem(const InferRequest& request, const ItemAnswer& answer) {
  if (!answer.status.ok()) return answer.status;
  const ModelConfig& config = servable_.config();
  outputs_.clear();
  for (uint32_t index : request.output_indices) {
    const std::string& name = config.outputs[index].name;
    if (answer.outputs[index].dtype == DataType::kInvalid) {
      return Internal("model '" + config.name + "' has given no output '" + name + "'");
    }
    outputs_.push_back({name, answer.outputs[index]});
  }
  return Status::Ok();
}

void BatchedServable::Executor::Answer(std::span<std::unique_ptr<InferRequest>> requests, int64_t total_rows) {
  servable_.AwaitTurn(turn_);
  const ModelConfig& config = servable_.config();
  ExecutionRecord record{.wall_ms = clock_.WallMs(),
                         .compute_input_ns = result_.execute_start_ns - result_.gather_start_ns,
                         .compute_infer_ns = result_.execute_end_ns - result_.execute_start_ns};
  RowRange rows{.batch_rows = total_rows, .only_request = requests.size() == 1};
  const bool by_item = !result_.items.empty();
  uint64_t failures = 0;
  int64_t failures_ns = 0;
  int64_t arrivals_ns = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    std::unique_ptr<InferRequest>& request = requests[i];
    rows.count = request->rows;
    if (!by_item) {
      ScatterOutputs(config, result_, *request, rows, &outputs_);
    } else if (const Status status = TakeItem(*request, result_.items[i]); !status.ok()) {
      ++failures;
      failures_ns += clock_.NowNs() - request->arrival_ns;
      Complete(std::move(request), status, nullptr);
      continue;
    }
    rows.first += rows.count;
    ++record.requests;
    record.rows += rows.count;
    arrivals_ns += request->arrival_ns;
    record.queue_ns += result_.gather_start_ns - request->enqueue_ns;
    const InferResponse response{
        .model_name = config.name, .model_version = servable_.version_text(), .id = request->id, .outputs = outputs_};
    Complete(std::move(request), Status::Ok(), &response);
  }
  const int64_t end_ns = clock_.NowNs();
  record.request_ns = end_ns * static_cast<int64_t>(record.requests) - arrivals_ns;
  record.compute_output_ns = end_ns - result_.execute_end_ns;
  if (record.requests > 0) servable_.statistics_.RecordExecution(record);
  if (failures > 0) servable_.statistics_.RecordFailures(failures, failures_ns);
}

void BatchedServable::Executor::Fail(std::span<std::unique_ptr<InferRequest>> requests, const Status& status) {
  servable_.AwaitTurn(turn_);
  int64_t total_ns = 0;
  const int64_t now_ns = clock_.NowNs();
  const uint64_t count = requests.size();
  for (auto& request : requests) {
    total_ns += now_ns - request->arrival_ns;
    Complete(std::move(request), status, nullptr);
  }
  servable_.statistics_.RecordFailures(count, total_ns);
}

void BatchedServable::Executor::FailGivenUp() {
  const int64_t now_ns = clock_.NowNs();
  for (GivenUpRequest& given_up : work_.given_up) {
    Refusal refusal = servable_.GivenUp(given_up.reason);
    servable_.statistics_.RecordDrop(refusal.reason, now_ns - given_up.request->arrival_ns);
    Complete(std::move(given_up.request), refusal.status, nullptr);
  }
  work_.given_up.clear();
}

void BatchedServable::Executor::Complete(std::unique_ptr<InferRequest> request, const Status& status,
                                         const InferResponse* response) {
  ResponseSink* sink = request->sink;
  if (std::ranges::find(sinks_, sink) == sinks_.end()) sinks_.push_back(sink);
  // Counted before the answer leaves, so that nobody sees a request answered and still pending.
  servable_.pending_.fetch_sub(1, std::memory_order_relaxed);
  sink->Complete(std::move(request), status, response);
}

void BatchedServable::Executor::FlushSinks() {
  for (ResponseSink* sink : sinks_) sink->Flush();
  sinks_.clear();
}

}  // namespace gristmill
