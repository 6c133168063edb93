// SPDX-License-Identifier: Apache-2.0
#include "simulation/simulation.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "batching/adaptive_batch_policy.h"
#include "bindings/bindings.h"
#include "simulation/peer_policies.h"

namespace py = pybind11;

namespace gristmill::python {
namespace {

using Int64Array = py::array_t<int64_t, py::array::c_style | py::array::forcecast>;

std::span<const int64_t> View(const Int64Array& array) { return {array.data(), static_cast<size_t>(array.size())}; }

py::array_t<int64_t> ToArray(const std::vector<int64_t>& values) {
  return py::array_t<int64_t>(static_cast<py::ssize_t>(values.size()), values.data());
}

void CheckTrace(std::span<const int64_t> arrivals_ns, std::span<const int64_t> run_ns, int executors) {
  const auto refuse = [](const std::string& what) { ThrowIfError(InvalidArgument(what)); };
  if (!std::ranges::is_sorted(arrivals_ns)) refuse("arrivals_ns must ascend");
  if (!arrivals_ns.empty() && arrivals_ns.front() < 0) refuse("arrivals_ns must not be negative");
  if (run_ns.empty()) refuse("run_ns must have an entry for each number of rows, from 1 on");
  if (std::ranges::any_of(run_ns, [](int64_t ns) { return ns < 1; })) refuse("run_ns must be positive");
  if (executors < 1) refuse("executors must be at least 1, not " + std::to_string(executors));
}

py::tuple RunSimulation(const std::string& policy, const Int64Array& arrivals, const Int64Array& runs,
                        int64_t objective_ns, int executors, double spread, int64_t max_queue_delay_ns, uint64_t seed) {
  const auto arrivals_ns = View(arrivals);
  const auto run_ns = View(runs);
  CheckTrace(arrivals_ns, run_ns, executors);
  const AdaptiveBatchPolicy adaptive;
  ClipperPolicy clipper(objective_ns);
  const NexusPolicy nexus(objective_ns, run_ns);
  const ClockworkPolicy clockwork(run_ns);
  SimulationOptions options{
      .arrivals_ns = arrivals_ns, .run_ns = run_ns, .spread = spread, .seed = seed, .executors = executors};
  if (policy == "gristmill" || policy == "nexus" || policy == "clockwork") {
    options.deadline_ns = objective_ns;
    options.policy = &adaptive;
    if (policy == "nexus") options.policy = &nexus;
    if (policy == "clockwork") options.policy = &clockwork;
  } else if (policy == "clipper") {
    options.policy = &clipper;
    options.on_run = [&](int64_t rows, int64_t duration_ns) { clipper.Observe(rows, duration_ns); };
  } else if (policy == "fixed_delay") {
    options.policy = &adaptive;
    options.max_queue_delay_ns = max_queue_delay_ns;
  } else {
    ThrowIfError(InvalidArgument("expected a policy of gristmill, fixed_delay, clipper, nexus or clockwork, got '" +
                                 policy + "'"));
  }
  SimulationResult result;
  {
    py::gil_scoped_release release;
    result = Simulate(options);
  }
  return py::make_tuple(ToArray(result.answered_ns), ToArray(result.batch_rows));
}

using RequestTuple = std::tuple<int64_t, int64_t, int64_t, int64_t>;

py::dict Decide(const std::vector<std::vector<RequestTuple>>& groups, const std::vector<RequestTuple>& latency,
                int64_t max_rows, int64_t max_queue_delay_ns, std::vector<int64_t> preferred_rows, int64_t gap_ns,
                int64_t last_arrival_ns, int64_t now_ns) {
  std::vector<std::vector<PendingRequest>> pending;
  std::vector<PendingGroup> views;
  for (const auto& group : groups) {
    auto& requests = pending.emplace_back();
    for (const auto& [rows, enqueue_ns, deadline_ns, start_by_ns] : group) {
      requests.push_back(
          {.rows = rows, .enqueue_ns = enqueue_ns, .deadline_ns = deadline_ns, .start_by_ns = start_by_ns});
    }
  }
  for (const auto& requests : pending) views.push_back({requests});
  std::vector<LatencyTable::Entry> entries;
  for (const auto& [rows, floor_ns, typical_ns, tail_ns] : latency) {
    entries.push_back({.rows = rows, .floor_ns = floor_ns, .typical_ns = typical_ns, .tail_ns = tail_ns});
  }
  const BatchDecision decision = AdaptiveBatchPolicy().Decide(
      {.groups = views,
       .limits = {.max_rows = max_rows, .max_queue_delay_ns = max_queue_delay_ns, .preferred_rows = preferred_rows},
       .latency = {.entries = entries},
       .arrivals = {.gap_ns = gap_ns, .last_ns = last_arrival_ns},
       .now_ns = now_ns});
  py::dict dict;
  dict["group"] = decision.group;
  dict["count"] = decision.count;
  dict["give_up_before_ns"] = decision.give_up_before_ns;
  dict["wait_until_ns"] = decision.wait_until_ns;
  return dict;
}

}  // namespace

void RegisterSimulation(py::module_& m) {
  m.attr("NEVER") = kNever;
  m.def("simulate", &RunSimulation, py::kw_only(), py::arg("policy"), py::arg("arrivals_ns"), py::arg("run_ns"),
        py::arg("objective_ns"), py::arg("executors") = 1, py::arg("spread") = 0.0, py::arg("max_queue_delay_ns") = 0,
        py::arg("seed") = 0);
  m.def("decide", &Decide, py::kw_only(), py::arg("groups"), py::arg("latency"), py::arg("max_rows"),
        py::arg("max_queue_delay_ns") = kAdaptiveDelay, py::arg("preferred_rows") = std::vector<int64_t>{},
        py::arg("gap_ns") = kNever, py::arg("last_arrival_ns") = 0, py::arg("now_ns") = 0);
}

}  // namespace gristmill::python
