// SPDX-License-Identifier: Apache-2.0
#include "batching/request_queue.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace gristmill {

RequestQueue::RequestQueue(RequestQueueOptions options)
    : options_(std::move(options)), level_sizes_(options_.levels.size()), level_rows_(options_.levels.size()) {}

void RequestQueue::Group::Insert(const PendingRequest& entry, Waiting waiter) {
  size_t at = waiting.size();
  while (at > head && waiter.place < waiting[at - 1].place) --at;  // mostly it is the last
  pending.insert(pending.begin() + static_cast<ptrdiff_t>(at), entry);
  waiting.insert(waiting.begin() + static_cast<ptrdiff_t>(at), std::move(waiter));
}

void RequestQueue::Group::PopFront(size_t count) {
  head += count;
  // Moving the rest down costs its length, so it is done only when at least as many entries before it are gone.
  if (head * 2 < waiting.size()) return;
  pending.erase(pending.begin(), pending.begin() + static_cast<ptrdiff_t>(head));
  waiting.erase(waiting.begin(), waiting.begin() + static_cast<ptrdiff_t>(head));
  head = 0;
}

void RequestQueue::Group::Erase(size_t index) {
  const auto front = static_cast<ptrdiff_t>(head);
  const auto at = front + static_cast<ptrdiff_t>(index);
  // The gap is closed from its nearer end: callers who go all at once are mostly neighbours at one of them.
  if (index < size() / 2) {
    std::move_backward(pending.begin() + front, pending.begin() + at, pending.begin() + at + 1);
    std::move_backward(waiting.begin() + front, waiting.begin() + at, waiting.begin() + at + 1);
    PopFront(1);
  } else {
    pending.erase(pending.begin() + at);
    waiting.erase(waiting.begin() + at);
  }
}

size_t RequestQueue::LevelOf(uint64_t priority) const {
  return priority == 0 || priority > options_.levels.size() ? options_.default_level : priority - 1;
}

bool RequestQueue::HasRoom(uint64_t priority) const {
  const size_t level = LevelOf(priority);
  const int64_t limit = options_.levels[level].max_queue_size;
  return limit == 0 || level_sizes_[level] < static_cast<size_t>(limit);
}

int64_t RequestQueue::RowsAhead(uint64_t priority) const {
  const auto end = level_rows_.begin() + static_cast<ptrdiff_t>(LevelOf(priority)) + 1;
  return std::accumulate(level_rows_.begin(), end, int64_t{0});
}

void RequestQueue::Push(std::unique_ptr<InferRequest> request, uint64_t group_key) {
  const size_t level = LevelOf(request->priority);
  const Place place{.rank = static_cast<uint32_t>(2 * level), .sequence = next_sequence_++};
  arrivals_ns_[place.sequence % kArrivals] = request->enqueue_ns;
  const Groups::iterator group = GroupFor(*request, group_key, place);
  request->queue_place = {.group_key = group->second.key, .sequence = place.sequence, .rank = place.rank};
  PendingRequest entry{.rows = request->rows, .enqueue_ns = request->enqueue_ns, .deadline_ns = request->deadline_ns};
  const int64_t timeout_us = options_.levels[level].TimeoutUs(request->timeout_us);
  if (timeout_us > 0) entry.start_by_ns = request->arrival_ns + timeout_us * 1000;
  ++size_;
  ++level_sizes_[level];
  level_rows_[level] += request->rows;
  group->second.Insert(entry, {place, std::move(request)});
  Settle(group);
}

void RequestQueue::Forget(const InferRequest& request) {
  const size_t level = request.queue_place.rank / 2;
  --size_;
  --level_sizes_[level];
  level_rows_[level] -= request.rows;
}

std::unique_ptr<InferRequest> RequestQueue::Remove(const InferRequest* request) {
  const auto entry = group_of_key_.find(request->queue_place.group_key);
  if (entry == group_of_key_.end()) return nullptr;
  Group& group = *entry->second;
  const auto front = group.waiting.begin() + static_cast<ptrdiff_t>(group.head);
  const Place place{.rank = request->queue_place.rank, .sequence = request->queue_place.sequence};
  const auto found = std::ranges::lower_bound(front, group.waiting.end(), place, {}, &Waiting::place);
  // Its place may be another's by now, if its group has emptied since or if it was pushed to another queue.
  if (found == group.waiting.end() || found->request.get() != request) return nullptr;
  const Groups::iterator shrunk = FindGroup(group);
  std::unique_ptr<InferRequest> removed = std::move(found->request);
  group.Erase(static_cast<size_t>(found - front));
  Forget(*removed);
  Settle(shrunk);
  return removed;
}

RequestQueue::Groups::iterator RequestQueue::GroupFor(const InferRequest& request, uint64_t group_key, Place place) {
  if (options_.preserve_order) {
    if (newest_group_ != nullptr &&
        options_.compatible(*newest_group_->waiting[newest_group_->head].request, request)) {
      return FindGroup(*newest_group_);
    }
    group_key = place.sequence;  // of its own
  }
  for (;; ++group_key) {  // a collision goes to the next key
    auto [entry, is_new] = group_of_key_.try_emplace(group_key, nullptr);
    if (!is_new) {
      Group& group = *entry->second;
      if (options_.compatible(*group.waiting[group.head].request, request)) return FindGroup(group);
      continue;
    }
    Groups::iterator group;
    if (spare_.empty()) {
      group = groups_.try_emplace(groups_.end(), place);
    } else {
      spare_.back().key() = place;
      group = groups_.insert(groups_.end(), std::move(spare_.back()));
      spare_.pop_back();
    }
    group->second.key = group_key;
    entry->second = &group->second;
    newest_group_ = &group->second;
    return group;
  }
}

bool RequestQueue::SweepOne(Group& group, size_t index, const LatencyProfile& profile, int64_t now_ns,
                            std::vector<GivenUpRequest>* given_up) {
  PendingRequest entry = group.pending[group.head + index];
  Waiting& waiter = group.waiting[group.head + index];
  GivenUpReason reason = GivenUpReason::kExpired;
  if (entry.deadline_ns > now_ns) {
    const bool may_judge = entry.deadline_ns != kNever && profile.is_fresh(now_ns);
    if (entry.start_by_ns <= now_ns) {
      reason = GivenUpReason::kTimeout;
    } else if (may_judge && now_ns + profile.table().At(entry.rows).floor_ns > entry.deadline_ns) {
      reason = GivenUpReason::kHopeless;
    } else {
      return false;
    }
  }
  Waiting moved = std::move(waiter);
  group.Erase(index);
  if (reason == GivenUpReason::kTimeout && options_.levels[moved.place.rank / 2].delays_timed_out) {
    entry.start_by_ns = kNever;
    moved.request->queue_place.rank = ++moved.place.rank;
    group.Insert(entry, std::move(moved));
  } else {
    Forget(*moved.request);
    given_up->push_back({std::move(moved.request), reason});
  }
  return true;
}

void RequestQueue::Sweep(Group& group, const LatencyProfile& profile, int64_t now_ns,
                         std::vector<GivenUpRequest>* given_up) {
  int64_t rows = 0;
  size_t index = 0;
  while (index < group.size() && rows <= options_.max_rows) {
    const int64_t next_rows = group.pending[group.head + index].rows;
    if (SweepOne(group, index, profile, now_ns, given_up)) continue;
    rows += next_rows;
    ++index;
  }
}

RequestQueue::Groups::iterator RequestQueue::Settle(Groups::iterator group) {
  const auto next = std::next(group);
  const bool is_empty = group->second.size() == 0;
  if (!is_empty && group->second.front() == group->first) return next;
  Groups::node_type node = groups_.extract(group);
  if (is_empty) {
    group_of_key_.erase(node.mapped().key);
    if (newest_group_ == &node.mapped()) newest_group_ = nullptr;
    node.mapped().PopFront(0);
    spare_.push_back(std::move(node));
  } else {
    node.key() = node.mapped().front();
    groups_.insert(std::move(node));
  }
  return next;
}

ArrivalRate RequestQueue::Arrivals(int64_t now_ns) const {
  if (next_sequence_ < 2) return {};
  const uint64_t count = std::min<uint64_t>(next_sequence_, kArrivals);
  const int64_t last_ns = arrivals_ns_[(next_sequence_ - 1) % kArrivals];
  const int64_t first_ns = arrivals_ns_[(next_sequence_ - count) % kArrivals];
  const auto gaps = static_cast<int64_t>(count - 1);
  // A pause since the last one says as much as a gap between two.
  const int64_t gap_ns = std::max((last_ns - first_ns) / gaps, (now_ns - first_ns) / (gaps + 1));
  return {.gap_ns = gap_ns, .last_ns = last_ns};
}

BatchDecision RequestQueue::Decide(const BatchPolicy& policy, const LatencyProfile& profile, int64_t now_ns,
                                   std::vector<GivenUpRequest>* given_up) {
  const size_t groups_per_decision = options_.preserve_order ? 1 : kGroupsPerDecision;
  size_t looked_at = 0;
  for (auto group = groups_.begin(); group != groups_.end() && looked_at < groups_per_decision; ++looked_at) {
    Sweep(group->second, profile, now_ns, given_up);
    group = Settle(group);
  }
  snapshot_.clear();
  snapshot_groups_.clear();
  for (auto group = groups_.begin(); group != groups_.end() && snapshot_.size() < groups_per_decision; ++group) {
    snapshot_.push_back({std::span(group->second.pending).subspan(group->second.head)});
    snapshot_groups_.push_back(group);
  }
  if (snapshot_.empty()) return {};
  return policy.Decide({.groups = snapshot_,
                        .limits = {.max_rows = options_.max_rows,
                                   .max_queue_delay_ns = waits_ ? options_.max_queue_delay_ns : 0,
                                   .preferred_rows = options_.preferred_rows},
                        .latency = profile.table(),
                        .arrivals = Arrivals(now_ns),
                        .now_ns = now_ns});
}

void RequestQueue::Take(const BatchDecision& decision, std::vector<std::unique_ptr<InferRequest>>* batch,
                        std::vector<GivenUpRequest>* given_up) {
  const Groups::iterator taken = snapshot_groups_.at(decision.group);
  Group& group = taken->second;
  size_t passed = 0;
  for (size_t count = 0; count < decision.count; ++passed) {
    std::unique_ptr<InferRequest>& request = group.waiting[group.head + passed].request;
    Forget(*request);
    if (request->deadline_ns < decision.give_up_before_ns) {
      given_up->push_back({std::move(request), GivenUpReason::kHopeless});
    } else {
      batch->push_back(std::move(request));
      ++count;
    }
  }
  group.PopFront(passed);
  Settle(taken);
}

}  // namespace gristmill
