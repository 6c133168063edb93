// SPDX-License-Identifier: Apache-2.0
#include "simulation/simulation.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <utility>

#include "batching/scheduler.h"
#include "core/infer_request.h"

namespace gristmill {
namespace {

struct SimulatedExecutor {
  int64_t done_ns = kNever;  // idle
  int64_t began_ns = 0;
  std::vector<uint64_t> tickets;
};

class Simulation {
 public:
  explicit Simulation(const SimulationOptions& options)
      : options_(options),
        scheduler_(
            {.queue = {.max_rows = MaxRows(), .max_queue_delay_ns = options.max_queue_delay_ns, .compatible = &AnyTwo},
             .max_rows = MaxRows(),
             .executors = options.executors,
             .policy = options.policy}),
        executors_(static_cast<size_t>(options.executors)),
        random_(options.seed),
        noise_(-options.spread * options.spread / 2, options.spread) {
    result_.answered_ns.assign(options.arrivals_ns.size(), kNever);
  }

  SimulationResult Run() {
    for (int64_t now_ns = NextEventNs(); now_ns != kNever; now_ns = NextEventNs()) {
      for (size_t i = 0; i < executors_.size(); ++i) {
        if (executors_[i].done_ns <= now_ns) End(i);
      }
      while (arrived_ < options_.arrivals_ns.size() && options_.arrivals_ns[arrived_] <= now_ns) Arrive(now_ns);
      if (arrived_ == options_.arrivals_ns.size()) scheduler_.StopWaiting();
      wake_ns_ = kNever;
      for (size_t i = 0; i < executors_.size(); ++i) {
        if (executors_[i].done_ns == kNever) Begin(i, now_ns);
      }
    }
    return std::move(result_);
  }

 private:
  static bool AnyTwo(const InferRequest&, const InferRequest&) { return true; }

  int64_t MaxRows() const { return static_cast<int64_t>(options_.run_ns.size()); }

  int64_t NextEventNs() const {
    int64_t next_ns = wake_ns_;
    if (arrived_ < options_.arrivals_ns.size()) next_ns = std::min(next_ns, options_.arrivals_ns[arrived_]);
    for (const SimulatedExecutor& executor : executors_) next_ns = std::min(next_ns, executor.done_ns);
    return next_ns;
  }

  void Arrive(int64_t now_ns) {
    auto request = std::make_unique<InferRequest>();
    request->ticket = arrived_++;
    request->arrival_ns = request->enqueue_ns = now_ns;
    request->deadline_ns = options_.deadline_ns == kNever ? kNever : now_ns + options_.deadline_ns;
    int64_t answered_ns = 0;
    scheduler_.Offer(&request, /*group_key=*/0, now_ns, &answered_ns);
  }

  void Begin(size_t index, int64_t now_ns) {
    int64_t wait_until_ns = kNever;
    const bool has_work = scheduler_.Next(index, now_ns, &work_, &wait_until_ns);
    // What was only given up leaves the executor idle, with more to decide.
    if (has_work && work_.batch.empty()) {
      work_.given_up.clear();
      return Begin(index, now_ns);
    }
    // A thread cannot sleep for no time either.
    if (!has_work) wake_ns_ = std::min(wake_ns_, std::max(wait_until_ns, now_ns + 1));
    if (work_.batch.empty()) return;
    SimulatedExecutor& executor = executors_[index];
    executor.began_ns = now_ns;
    for (const auto& request : work_.batch) executor.tickets.push_back(request->ticket);
    const auto typical_ns = static_cast<double>(options_.run_ns[work_.batch.size() - 1]);
    const double noise = options_.spread > 0 ? std::exp(noise_(random_)) : 1;
    executor.done_ns = now_ns + std::max<int64_t>(1, std::llround(typical_ns * noise));
    work_ = {};
  }

  void End(size_t index) {
    SimulatedExecutor& executor = executors_[index];
    const auto rows = static_cast<int64_t>(executor.tickets.size());
    const int64_t duration_ns = executor.done_ns - executor.began_ns;
    for (uint64_t ticket : executor.tickets) result_.answered_ns[ticket] = executor.done_ns;
    executor.tickets.clear();
    result_.batch_rows.push_back(rows);
    scheduler_.Finished(index, rows, duration_ns, duration_ns, executor.done_ns);
    options_.on_run(rows, duration_ns);
    executor.done_ns = kNever;
  }

  const SimulationOptions& options_;
  Scheduler scheduler_;
  std::vector<SimulatedExecutor> executors_;
  std::mt19937_64 random_;
  std::normal_distribution<double> noise_;
  Work work_;
  size_t arrived_ = 0;
  int64_t wake_ns_ = kNever;
  SimulationResult result_;
};

}  // namespace

SimulationResult Simulate(const SimulationOptions& options) { return Simulation(options).Run(); }

}  // namespace gristmill
