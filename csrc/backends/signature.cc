// SPDX-License-Identifier: Apache-2.0
#include "backends/signature.h"

#include <algorithm>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/data_type.h"
#include "core/tensor.h"

namespace gristmill {
namespace {

std::string DimsText(const std::vector<int64_t>& dims) {
  std::string text = "[";
  for (size_t i = 0; i < dims.size(); ++i) {
    if (i > 0) text += ',';
    text += std::to_string(dims[i]);
  }
  return text + "]";
}

std::string Names(const std::vector<TensorSpec>& specs) {
  std::string text;
  for (const TensorSpec& spec : specs) {
    text += text.empty() ? "'" : ", '";
    text += spec.name + "'";
  }
  return text.empty() ? "none" : text;
}

/// The configured dims as the file would write them.
std::vector<int64_t> FullDims(const ModelConfig& config, const TensorSpec& spec) {
  std::vector<int64_t> dims = spec.dims;
  if (config.max_batch_size > 0) dims.insert(dims.begin(), -1);
  return dims;
}

bool InputDimsFit(const ModelConfig& config, const std::vector<int64_t>& configured, const std::vector<int64_t>& file) {
  if (configured.size() != file.size()) return false;
  for (size_t i = 0; i < file.size(); ++i) {
    const bool batch_of_one = i == 0 && config.max_batch_size == 1 && file[i] == 1;
    if (file[i] >= 0 && file[i] != configured[i] && !batch_of_one) return false;
  }
  return true;
}

bool OutputDimsFit(const ModelConfig& config, const std::vector<int64_t>& configured,
                   const std::vector<int64_t>& file) {
  if (file.empty()) return true;
  if (configured.size() != file.size()) return false;
  for (size_t i = config.max_batch_size > 0 ? 1 : 0; i < file.size(); ++i) {
    if (file[i] >= 0 && configured[i] >= 0 && file[i] != configured[i]) return false;
  }
  return true;
}

Status CheckTensors(const ModelConfig& config, std::string_view kind, const std::vector<TensorSpec>& configured,
                    const std::vector<TensorSpec>& file, decltype(InputDimsFit)* dims_fit) {
  std::set<std::string_view> seen;
  for (const TensorSpec& spec : configured) {
    const std::string where = "model '" + config.name + "', " + std::string(kind) + " '" + spec.name + "': ";
    if (!seen.insert(spec.name).second) return InvalidArgument(where + "configured twice; list each tensor once");
    const auto found = std::ranges::find(file, spec.name, &TensorSpec::name);
    if (found == file.end()) {
      return InvalidArgument(where + "the model file has no such " + std::string(kind) + "; it has " + Names(file));
    }
    if (found->dtype != spec.dtype) {
      return InvalidArgument(where + "the model file has type " + std::string(DataTypeName(found->dtype)) +
                             ", the configuration says " + std::string(DataTypeName(spec.dtype)));
    }
    const std::vector<int64_t> full = FullDims(config, spec);
    if (!dims_fit(config, full, found->dims)) {
      std::string message =
          where + "the model file has dims " + DimsText(found->dims) + ", the configuration says " + DimsText(full);
      if (config.max_batch_size > 0) {
        message += " (its dims with the batch dimension in front, because max_batch_size is " +
                   std::to_string(config.max_batch_size) + "); if the model has no batch dimension of any size, set " +
                   "max_batch_size: 0 and give the dims in full";
      }
      return InvalidArgument(std::move(message));
    }
  }
  return Status::Ok();
}

}  // namespace

Status CheckAgainstSignature(const ModelConfig& config, const ModelSignature& signature) {
  if (Status status = CheckTensors(config, "input", config.inputs, signature.inputs, &InputDimsFit); !status.ok()) {
    return status;
  }
  for (const TensorSpec& spec : signature.inputs) {
    if (std::ranges::find(config.inputs, spec.name, &TensorSpec::name) == config.inputs.end()) {
      return InvalidArgument("model '" + config.name + "', input '" + spec.name +
                             "': the model file needs it and the configuration lacks it; configured are " +
                             Names(config.inputs));
    }
  }
  if (config.outputs.empty()) {
    return InvalidArgument("model '" + config.name + "': no output is configured; the model file has " +
                           Names(signature.outputs));
  }
  return CheckTensors(config, "output", config.outputs, signature.outputs, &OutputDimsFit);
}

}  // namespace gristmill
