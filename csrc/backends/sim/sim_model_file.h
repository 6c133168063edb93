// SPDX-License-Identifier: Apache-2.0
// The text of a `model.sim`: a model that computes next to nothing, in the time and with the faults it is told.
//
// One statement a line, words separated by blanks, `#` begins a comment. Dims include the batch dimension; -1 is any
// size.
//
//   input  IDS INT64 -1 4
//   output IDS_OUT INT64 -1 4 = identity IDS      # the input's bytes and shape, of any type
//   output TOTAL INT64 -1 = row_sum IDS           # per row the sum of its elements; integers wrap around. Shape [rows]
//   output COMPANY INT64 -1 = batch_rows          # per row the number of rows in its batch. Shape [rows]
//   latency_us 1:100 8:150 64:400                 # by rows, straight lines in between; flat before the first point,
//                                                 # the last slope beyond the last. Without this line: no time at all
//   fail_every 5                                  # an instance's executions 5, 10, 15 ... fail with INTERNAL
//   poison IDS 666                                # a batch with this element fails whole, with INVALID_ARGUMENT
//   extra_rows TOTAL -1                           # so many rows more (zeros, empty strings) or fewer than is right
//   fail_create_instance                          # every CreateInstance fails with INTERNAL
//
// A failing execution takes its time as a good one does.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "core/model_config.h"
#include "core/status.h"

namespace gristmill {

enum class SimFunction { kIdentity, kRowSum, kBatchRows };

struct SimOutput {
  SimFunction function = SimFunction::kIdentity;
  size_t input = 0;  // index into the signature's inputs; unused by kBatchRows
  int64_t extra_rows = 0;
};

struct SimLatencyPoint {
  int64_t rows = 0;
  int64_t us = 0;
};

struct SimPoison {
  size_t input = 0;
  std::vector<std::byte> element;  // as in the tensor; for kBytes without its length
};

struct SimModelFile {
  ModelSignature signature;
  std::vector<SimOutput> outputs;  // as signature.outputs
  std::vector<SimLatencyPoint> latency;
  std::vector<SimPoison> poisons;
  int64_t fail_every = 0;  // 0: never
  bool fail_create_instance = false;
};

/// Errors: kInvalidArgument with the line's number and what was expected.
Status ParseSimModelFile(std::string_view text, SimModelFile* file);

/// How long `rows` rows take by the profile.
int64_t SimLatencyNs(const std::vector<SimLatencyPoint>& profile, int64_t rows);

}  // namespace gristmill
