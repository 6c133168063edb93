// SPDX-License-Identifier: Apache-2.0
// RequestQueue: the requests that wait for one model version, grouped by what may share a batch.
//
// Order: by priority, then by arrival; a request whose time to begin has passed, if its level does not give it up,
// comes after all others of its level. With preserve_order, only neighbours in that order share a batch, and the oldest
// goes first. Thread-safety: none; its owner holds one lock around every call. No call copies tensors, computes or
// answers. Ownership: owns the requests pushed until Take, Remove or Decide hands them out.
//
//   if (queue.HasRoom(request->priority)) queue.Push(std::move(request), key);
//   BatchDecision decision = queue.Decide(policy, profile, now_ns, &given_up);
//   if (decision.count > 0) queue.Take(decision, &batch, &given_up);
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <unordered_map>
#include <utility>
#include <vector>

#include "batching/latency_profile.h"
#include "core/batch_policy.h"
#include "core/infer_request.h"
#include "core/model_config.h"

namespace gristmill {

struct RequestQueueOptions {
  int64_t max_rows = 1;
  int64_t max_queue_delay_ns = 0;                               // or kAdaptiveDelay
  std::vector<int64_t> preferred_rows;                          // ascending
  std::vector<QueueLevel> levels = std::vector<QueueLevel>(1);  // the most urgent first
  size_t default_level = 0;  // of requests without a priority, or with one that there is not
  bool preserve_order = false;
  /// Whether two requests with the same group key may really share a batch: keys are hashes, and hashes collide.
  std::function<bool(const InferRequest&, const InferRequest&)> compatible;
};

/// Why a request that waited is not run.
enum class GivenUpReason {
  kExpired,   // its deadline has passed
  kHopeless,  // its deadline will have passed when it could be answered
  kTimeout,   // it has not begun to run within its timeout
};

struct GivenUpRequest {
  std::unique_ptr<InferRequest> request;
  GivenUpReason reason = GivenUpReason::kExpired;
};

class RequestQueue {
 public:
  explicit RequestQueue(RequestQueueOptions options);

  /// Whether a request of this priority finds its level below its max_queue_size.
  bool HasRoom(uint64_t priority) const;

  /// What holds for requests of this priority.
  const QueueLevel& LevelFor(uint64_t priority) const { return options_.levels[LevelOf(priority)]; }

  /// Appends a request; its `rows`, `enqueue_ns` and `deadline_ns` are set. Requests with one key form a group.
  void Push(std::unique_ptr<InferRequest> request, uint64_t group_key);

  /// Hands out a request that was pushed at some time, here or to another queue; null if it does not wait here.
  std::unique_ptr<InferRequest> Remove(const InferRequest* request);

  /// Moves what is not to be run, as far as it stands where a batch could begin, into `given_up`, then asks the policy.
  /// The decision holds until the next call of Push, Remove or Take.
  BatchDecision Decide(const BatchPolicy& policy, const LatencyProfile& profile, int64_t now_ns,
                       std::vector<GivenUpRequest>* given_up);

  /// Appends the requests of a decision with count > 0 to `batch`, and those that it gives up to `given_up`.
  void Take(const BatchDecision& decision, std::vector<std::unique_ptr<InferRequest>>* batch,
            std::vector<GivenUpRequest>* given_up);

  /// No request comes any more, so from now on no batch waits for company.
  void StopWaiting() { waits_ = false; }

  size_t size() const { return size_; }
  int64_t rows() const { return std::accumulate(level_rows_.begin(), level_rows_.end(), int64_t{0}); }

  /// Rows of the requests that a new one of this priority would come after.
  int64_t RowsAhead(uint64_t priority) const;

 private:
  /// What comes first has the smaller one.
  struct Place {
    uint32_t rank = 0;  // twice the level, and one more once it was delayed
    uint64_t sequence = 0;
    auto operator<=>(const Place&) const = default;
  };
  struct Waiting {
    Place place;
    std::unique_ptr<InferRequest> request;
  };
  /// Parallel vectors in the order of places, so that the policy gets a contiguous view of sizes and times. Entries
  /// before `head` are gone.
  struct Group {
    uint64_t key = 0;
    size_t head = 0;
    std::vector<PendingRequest> pending;
    std::vector<Waiting> waiting;

    size_t size() const { return waiting.size() - head; }
    const Place& front() const { return waiting[head].place; }
    void Insert(const PendingRequest& entry, Waiting waiter);
    void PopFront(size_t count);
    /// `index` counts from the front.
    void Erase(size_t index);
  };
  /// By the place of each group's first request.
  using Groups = std::map<Place, Group>;

  /// How many groups one decision looks at; the first come first, so none starves.
  static constexpr size_t kGroupsPerDecision = 32;
  static constexpr size_t kArrivals = 32;

  size_t LevelOf(uint64_t priority) const;
  Groups::iterator GroupFor(const InferRequest& request, uint64_t group_key, Place place);
  Groups::iterator FindGroup(Group& group) { return groups_.find(group.front()); }
  void Forget(const InferRequest& request);
  void Sweep(Group& group, const LatencyProfile& profile, int64_t now_ns, std::vector<GivenUpRequest>* given_up);
  /// Gives one up, or puts it back to the end of its level; whether it has left its place.
  bool SweepOne(Group& group, size_t index, const LatencyProfile& profile, int64_t now_ns,
                std::vector<GivenUpRequest>* given_up);
  /// Puts a group whose front has changed where it now belongs, or away if it is empty. Returns the one after it.
  Groups::iterator Settle(Groups::iterator group);
  ArrivalRate Arrivals(int64_t now_ns) const;

  const RequestQueueOptions options_;
  bool waits_ = true;
  size_t size_ = 0;
  std::vector<size_t> level_sizes_;
  std::vector<int64_t> level_rows_;
  uint64_t next_sequence_ = 0;
  std::array<int64_t, kArrivals> arrivals_ns_{};  // of the last requests, by sequence
  Groups groups_;
  std::unordered_map<uint64_t, Group*> group_of_key_;
  Group* newest_group_ = nullptr;         // with preserve_order
  std::vector<Groups::node_type> spare_;  // emptied groups, kept for the capacity of their vectors
  std::vector<PendingGroup> snapshot_;
  std::vector<Groups::iterator> snapshot_groups_;
};

}  // namespace gristmill
