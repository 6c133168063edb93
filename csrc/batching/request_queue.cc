// SPDX-License-Identifier: Apache-2.0
#include "batching/request_queue.h"

#include <algorithm>
#include <utility>

namespace gristmill {

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

void RequestQueue::Push(std::unique_ptr<InferRequest> request, uint64_t group_key) {
  const uint64_t sequence = next_sequence_++;
  Group& group = GroupFor(*request, group_key, sequence);
  request->queue_place = {.group_key = group.key, .sequence = sequence};
  group.pending.push_back(
      {.rows = request->rows, .enqueue_ns = request->enqueue_ns, .deadline_ns = request->deadline_ns});
  group.waiting.push_back({sequence, std::move(request)});
  ++size_;
}

std::unique_ptr<InferRequest> RequestQueue::Remove(const InferRequest* request) {
  const auto entry = group_of_key_.find(request->queue_place.group_key);
  if (entry == group_of_key_.end()) return nullptr;
  Group& group = *entry->second;
  const auto front = group.waiting.begin() + static_cast<ptrdiff_t>(group.head);
  const auto found =
      std::ranges::lower_bound(front, group.waiting.end(), request->queue_place.sequence, {}, &Waiting::sequence);
  // Its place may be another's by now, if its group has emptied since or if it was pushed to another queue.
  if (found == group.waiting.end() || found->request.get() != request) return nullptr;
  const Groups::iterator shrunk = groups_.find(front->sequence);
  std::unique_ptr<InferRequest> removed = std::move(found->request);
  group.Erase(static_cast<size_t>(found - front));
  --size_;
  Settle(shrunk);
  return removed;
}

RequestQueue::Group& RequestQueue::GroupFor(const InferRequest& request, uint64_t group_key, uint64_t sequence) {
  for (;; ++group_key) {  // a collision goes to the next key
    auto [entry, is_new] = group_of_key_.try_emplace(group_key, nullptr);
    if (!is_new) {
      Group& group = *entry->second;
      if (options_.compatible(*group.waiting[group.head].request, request)) return group;
      continue;
    }
    Groups::iterator group;
    if (spare_.empty()) {
      group = groups_.emplace_hint(groups_.end(), sequence, Group{});
    } else {
      spare_.back().key() = sequence;
      group = groups_.insert(groups_.end(), std::move(spare_.back()));
      spare_.pop_back();
    }
    group->second.key = group_key;
    entry->second = &group->second;
    return group->second;
  }
}

void RequestQueue::DropExpired(Group& group, int64_t now_ns, std::vector<std::unique_ptr<InferRequest>>* dropped) {
  int64_t rows = 0;
  size_t index = 0;
  while (index < group.size() && rows <= options_.max_rows) {
    const PendingRequest& next = group.pending[group.head + index];
    if (next.deadline_ns <= now_ns) {
      dropped->push_back(std::move(group.waiting[group.head + index].request));
      group.Erase(index);
      --size_;
    } else {
      rows += next.rows;
      ++index;
    }
  }
}

RequestQueue::Groups::iterator RequestQueue::Settle(Groups::iterator group) {
  const auto next = std::next(group);
  const bool is_empty = group->second.size() == 0;
  if (!is_empty && group->second.waiting[group->second.head].sequence == group->first) return next;
  Groups::node_type node = groups_.extract(group);
  if (is_empty) {
    group_of_key_.erase(node.mapped().key);
    node.mapped().PopFront(0);
    spare_.push_back(std::move(node));
  } else {
    node.key() = node.mapped().waiting[node.mapped().head].sequence;
    groups_.insert(std::move(node));
  }
  return next;
}

BatchDecision RequestQueue::Decide(const BatchPolicy& policy, int64_t now_ns,
                                   std::vector<std::unique_ptr<InferRequest>>* dropped) {
  const size_t dropped_before = dropped->size();
  size_t looked_at = 0;
  for (auto group = groups_.begin(); group != groups_.end() && looked_at < kGroupsPerDecision; ++looked_at) {
    DropExpired(group->second, now_ns, dropped);
    group = dropped->size() == dropped_before ? std::next(group) : Settle(group);
  }
  snapshot_.clear();
  snapshot_groups_.clear();
  for (auto group = groups_.begin(); group != groups_.end() && snapshot_.size() < kGroupsPerDecision; ++group) {
    snapshot_.push_back({std::span(group->second.pending).subspan(group->second.head)});
    snapshot_groups_.push_back(group);
  }
  if (snapshot_.empty()) return {};
  return policy.Decide({.groups = snapshot_,
                        .limits = {.max_rows = options_.max_rows,
                                   .max_queue_delay_ns = waits_ ? options_.max_queue_delay_ns : 0,
                                   .preferred_rows = options_.preferred_rows},
                        .now_ns = now_ns});
}

void RequestQueue::Take(const BatchDecision& decision, std::vector<std::unique_ptr<InferRequest>>* batch) {
  const Groups::iterator taken = snapshot_groups_.at(decision.group);
  Group& group = taken->second;
  for (size_t i = 0; i < decision.count; ++i) batch->push_back(std::move(group.waiting[group.head + i].request));
  group.PopFront(decision.count);
  size_ -= decision.count;
  Settle(taken);
}

}  // namespace gristmill
