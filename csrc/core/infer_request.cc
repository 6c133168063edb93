// SPDX-License-Identifier: Apache-2.0
#include "core/infer_request.h"

namespace gristmill {

bool ResponseSink::Stream(const InferRequest&, const InferResponse&) { return false; }

void InferRequest::Reset() {
  received = ReceivedBytes();
  sink = nullptr;
  ticket = 0;
  envelope = Envelope::kNone;
  waiting_models.reset();
  arrival_ns = 0;
  deadline_ns = kNever;
  model_name = model_version = id = {};
  inputs.clear();
  requested_outputs.clear();
  timeout_us = 0;
  priority = 0;
  wants_final_response = false;
  sequence = {};
  decoded.clear();
  cancelled = false;
  servable = nullptr;
  servable_state = nullptr;
  rows = 1;
  enqueue_ns = 0;
  ordered_inputs.clear();
  output_indices.clear();
  encoded_response = Buffer();
}

}  // namespace gristmill
