// SPDX-License-Identifier: Apache-2.0
// ModelCallSink: where the requests that models make of each other are answered.
//
// Thread-safety: thread-safe, no state. Ownership: a request owns its call; both go when it is answered.
#pragma once

#include <memory>

#include "core/infer_request.h"
#include "core/model_caller.h"

namespace gristmill {

class ModelCallSink final : public ResponseSink {
 public:
  /// As the decoder would have filled it. `sink` outlives the request.
  static std::unique_ptr<InferRequest> MakeRequest(ModelCall call, ModelCaller::Done done, ModelCallSink* sink);

  void Complete(std::unique_ptr<InferRequest> request, const Status& status, const InferResponse* response) override;
  void Flush() override {}
};

}  // namespace gristmill
