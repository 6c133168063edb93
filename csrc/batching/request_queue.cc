// SPDX-License-Identifier: Apache-2.0
#include "batching/request_queue.h"

#include <algorithm>
#include <utility>

namespace gristmill {
namespace {

bool IsDead(const InferRequest& request, int64_t now_ns) {
  return request.cancelled.load(std::memory_order_relaxed) || request.deadline_ns <= now_ns;
}

}  // namespace

void RequestQueue::Group::PopFront(size_t count) {
  head += count;
  // Moving the rest down costs its length, so it is done only when at least as many entries before it are gone.
  if (head * 2 < waiting.size()) return;
  pending.erase(pending.begin(), pending.begin() + static_cast<ptrdiff_t>(head));
  waiting.erase(waiting.begin(), waiting.begin() + static_cast<ptrdiff_t>(head));
  head = 0;
}

void RequestQueue::Push(std::unique_ptr<InferRequest> request, uint64_t group_key) {
  const uint64_t sequence = next_sequence_++;
  Group& group = GroupFor(*request, group_key, sequence);
  group.pending.push_back(
      {.rows = request->rows, .enqueue_ns = request->enqueue_ns, .deadline_ns = request->deadline_ns});
  group.waiting.push_back({sequence, std::move(request)});
  ++size_;
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

void RequestQueue::DropDead(Group& group, int64_t now_ns, std::vector<std::unique_ptr<InferRequest>>* dropped) {
  int64_t rows = 0;
  size_t at = group.head;
  while (at < group.waiting.size() && rows <= options_.max_rows) {
    if (IsDead(*group.waiting[at].request, now_ns)) {
      dropped->push_back(std::move(group.waiting[at].request));
      group.waiting.erase(group.waiting.begin() + static_cast<ptrdiff_t>(at));
      group.pending.erase(group.pending.begin() + static_cast<ptrdiff_t>(at));
      --size_;
    } else {
      rows += group.pending[at].rows;
      ++at;
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
    DropDead(group->second, now_ns, dropped);
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
