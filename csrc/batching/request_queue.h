// SPDX-License-Identifier: Apache-2.0
// RequestQueue: the requests that wait for one model version, grouped by what may share a batch.
//
// Thread-safety: none; its owner holds one lock around every call. No call copies tensors, computes or answers.
// Ownership: owns the requests pushed until Take, Remove or a drop hands them out.
//
//   queue.Push(std::move(request), key);
//   BatchDecision decision = queue.Decide(policy, now_ns, &dropped);
//   if (decision.count > 0) queue.Take(decision, &batch);
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "core/batch_policy.h"
#include "core/infer_request.h"

namespace gristmill {

struct RequestQueueOptions {
  int64_t max_rows = 1;
  int64_t max_queue_delay_ns = 0;
  std::vector<int64_t> preferred_rows;  // ascending
  /// Whether two requests with the same group key may really share a batch: keys are hashes, and hashes collide.
  std::function<bool(const InferRequest&, const InferRequest&)> compatible;
};

class RequestQueue {
 public:
  explicit RequestQueue(RequestQueueOptions options) : options_(std::move(options)) {}

  /// Appends a request; its `rows`, `enqueue_ns` and `deadline_ns` are set. Requests with one key form a group.
  void Push(std::unique_ptr<InferRequest> request, uint64_t group_key);

  /// Hands out a request that was pushed at some time, here or to another queue; null if it does not wait here.
  std::unique_ptr<InferRequest> Remove(const InferRequest* request);

  /// Moves expired requests that stand where a batch could begin into `dropped`, then asks the policy.
  /// The decision holds until the next call of Push, Remove or Take.
  BatchDecision Decide(const BatchPolicy& policy, int64_t now_ns, std::vector<std::unique_ptr<InferRequest>>* dropped);

  /// Appends the requests of a decision with count > 0 to `batch`.
  void Take(const BatchDecision& decision, std::vector<std::unique_ptr<InferRequest>>* batch);

  /// No request comes any more, so from now on no batch waits for company.
  void StopWaiting() { waits_ = false; }

  size_t size() const { return size_; }

 private:
  struct Waiting {
    uint64_t sequence = 0;  // number of arrival
    std::unique_ptr<InferRequest> request;
  };
  /// Parallel vectors, so that the policy gets a contiguous view of sizes and times. Entries before `head` are gone.
  struct Group {
    uint64_t key = 0;
    size_t head = 0;
    std::vector<PendingRequest> pending;
    std::vector<Waiting> waiting;

    size_t size() const { return waiting.size() - head; }
    void PopFront(size_t count);
    /// `index` counts from the front.
    void Erase(size_t index);
  };
  /// By the arrival number of each group's oldest request.
  using Groups = std::map<uint64_t, Group>;

  /// How many groups one decision looks at; the oldest come first, so none starves.
  static constexpr size_t kGroupsPerDecision = 32;

  Group& GroupFor(const InferRequest& request, uint64_t group_key, uint64_t sequence);
  void DropExpired(Group& group, int64_t now_ns, std::vector<std::unique_ptr<InferRequest>>* dropped);
  /// Puts a group whose front has changed where it now belongs, or away if it is empty. Returns the one after it.
  Groups::iterator Settle(Groups::iterator group);

  const RequestQueueOptions options_;
  bool waits_ = true;
  size_t size_ = 0;
  uint64_t next_sequence_ = 0;
  Groups groups_;
  std::unordered_map<uint64_t, Group*> group_of_key_;
  std::vector<Groups::node_type> spare_;  // emptied groups, kept for the capacity of their vectors
  std::vector<PendingGroup> snapshot_;
  std::vector<Groups::iterator> snapshot_groups_;
};

}  // namespace gristmill
