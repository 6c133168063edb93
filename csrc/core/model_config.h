// SPDX-License-Identifier: Apache-2.0
// ModelConfig: what the engine and the backends need to know of one model version. Plain data, checked by whoever makes
// it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/data_type.h"

namespace gristmill {

/// A tensor as declared. -1 is any size.
struct TensorSpec {
  std::string name;
  DataType dtype = DataType::kInvalid;
  std::vector<int64_t> dims;
};

/// What a model file says of itself: dims as in the file, a batch dimension included where there is one.
struct ModelSignature {
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
};

/// What becomes of the requests of one priority while they wait.
struct QueueLevel {
  /// Requests that may wait. 0: no limit.
  int64_t max_queue_size = 0;
  /// From arrival to the begin of the run. 0: none but the request's own.
  int64_t default_timeout_us = 0;
  /// Whether a request's own timeout counts if it is shorter.
  bool allow_timeout_override = true;
  /// What has timed out is run after the others of its level. Otherwise it is given up.
  bool delays_timed_out = false;

  /// The one that counts of a request that asks for `requested_us`; 0 is none in both.
  int64_t TimeoutUs(int64_t requested_us) const {
    if (!allow_timeout_override || requested_us == 0) return default_timeout_us;
    return default_timeout_us == 0 ? requested_us : std::min(requested_us, default_timeout_us);
  }
};

struct BatchingOptions {
  /// Whether requests may be combined. Off, every request runs alone.
  bool dynamic = false;
  /// How long the oldest request may wait for company. 0: while it pays, by what runs take and how fast requests come.
  int64_t max_queue_delay_us = 0;
  /// Sizes in rows worth sending at once, ascending. Empty: only the largest.
  std::vector<int64_t> preferred_rows;
  /// By priority, the most urgent first. At least one.
  std::vector<QueueLevel> levels = std::vector<QueueLevel>(1);
  /// Into `levels`: of requests that name no priority, or one that there is not.
  size_t default_level = 0;
  /// Answers leave in the order of arrival.
  bool preserve_order = false;
};

/// An input that tells the model where in its sequence a row stands. Callers do not see it.
struct ControlInput {
  enum class Kind { kStart, kEnd, kReady, kCorrelationId };
  Kind kind = Kind::kStart;
  TensorSpec tensor;  // one element a row
  /// What "no" and "yes" are; of no meaning for kCorrelationId.
  double off = 0;
  double on = 1;
};

/// What the server keeps of a sequence between its requests: an output that is the input of the next. Callers do not
/// see either, unless the output is among ModelConfig::outputs as well.
struct StateTensor {
  TensorSpec input;
  std::string output_name;
  /// The first of every sequence: dims without the batch dimension, none of them open, and the bytes of one row.
  std::vector<int64_t> initial_dims;
  std::string initial_data;
};

struct SequenceOptions {
  /// A sequence without a request for so long is over.
  int64_t max_idle_us = 1'000'000;
  /// Sequences that an instance serves at the same time; others wait until one is over.
  int64_t max_sequences_per_instance = 1;
  std::vector<ControlInput> controls;
  std::vector<StateTensor> states;
};

/// Of a model whose answers are kept.
struct CacheOptions {
  /// How long. 0: for ever.
  int64_t ttl_us = 0;
  /// The inputs that the answer depends on. Empty: all.
  std::vector<std::string> key_inputs;
};

/// One model of an ensemble, and what its tensors are called there.
struct EnsembleStep {
  std::string model;
  std::string version;                         // as a request names it; empty: the newest
  std::map<std::string, std::string> inputs;   // the model's name -> the ensemble's
  std::map<std::string, std::string> outputs;  // likewise
};

/// What a run needs of something that models share, a memory bandwidth or a licence say.
struct ResourceNeed {
  std::string name;
  int64_t count = 1;
};

struct ModelConfig {
  std::string name;
  int64_t version = 0;
  /// Rows per batch; 0: the model has no batch dimension and every request runs alone.
  int64_t max_batch_size = 0;
  /// dims without the batch dimension when max_batch_size > 0.
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
  BatchingOptions batching;
  /// Of a model that serves sequences of requests.
  std::optional<SequenceOptions> sequence;
  /// A request may have any number of answers, each sent when it is there.
  bool decoupled = false;
  /// Not together with `sequence`.
  std::optional<CacheOptions> cache;
  /// Of an ensemble, which has no model of its own: each after those whose outputs it takes.
  std::vector<EnsembleStep> steps;
  /// A run begins only when it has these. Of several models that wait, one with half the weight gets twice the runs.
  std::vector<ResourceNeed> resources;
  int64_t weight = 1;
  /// Its executors' threads have been given CPUs, so that no other thread is to run it.
  bool has_own_cpus = false;
  /// Executors, each with a thread of its own. At least 1.
  int instance_count = 1;
};

/// Options for a backend or a model, by name.
using Parameters = std::map<std::string, std::string>;

}  // namespace gristmill
