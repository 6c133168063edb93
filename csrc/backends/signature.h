// SPDX-License-Identifier: Apache-2.0
// Whether a model's configuration fits what its file says of itself.
#pragma once

#include "core/model_config.h"
#include "core/status.h"

namespace gristmill {

/// Every input of the file is configured, every configured tensor is in the file, with its type and with dims that the
/// file allows. With max_batch_size > 0 the file's inputs must have a first dimension that takes any number of rows.
/// Outputs are held to their type only where the file is known to lie: an output's first dimension, and its rank when
/// the file gives it none. Every backend's CreateInstance begins with this, so that a request checked against the
/// configuration is safe to hand to the runtime.
/// Errors: kInvalidArgument, naming model, tensor, what was expected and what is configured.
Status CheckAgainstSignature(const ModelConfig& config, const ModelSignature& signature);

}  // namespace gristmill
