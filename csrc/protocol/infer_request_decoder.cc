// SPDX-License-Identifier: Apache-2.0
#include "protocol/infer_request_decoder.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <string>

#include "protocol/typed_contents.h"
#include "protocol/utf8.h"
#include "protocol/wire_reader.h"

namespace gristmill {
namespace {

std::string_view AsText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Status Damaged(std::string_view what) {
  return InvalidArgument("the request is not a ModelInferRequest: its " + std::string(what) +
                         " does not decode as protobuf");
}

/// An InferParameter, as far as the server acts on one.
struct Parameter {
  std::string_view name;
  bool is_set = false;            // neither false, zero nor empty
  std::optional<int64_t> number;  // of an integer parameter
};

bool ReadText(const WireReader& reader, std::string_view* text) {
  *text = AsText(reader.bytes());
  return IsUtf8(*text);
}

bool ReadParameterValue(std::span<const std::byte> message, Parameter* parameter) {
  WireReader reader(message);
  while (reader.Next()) {
    if (reader.type() == WireType::kVarint) {
      parameter->is_set = reader.number() != 0;
      parameter->number = static_cast<int64_t>(reader.number());
    } else {
      parameter->is_set = std::ranges::any_of(reader.bytes(), [](std::byte b) { return b != std::byte{0}; });
      parameter->number.reset();
    }
  }
  return reader.ok();
}

bool ReadParameter(std::span<const std::byte> map_entry, Parameter* parameter) {
  WireReader reader(map_entry);
  while (reader.Next()) {
    if (reader.Is(1, WireType::kBytes) && !ReadText(reader, &parameter->name)) return false;
    if (reader.Is(2, WireType::kBytes) && !ReadParameterValue(reader.bytes(), parameter)) return false;
  }
  return reader.ok();
}

class Decoder {
 public:
  Decoder(InferRequest* request, BufferPool* pool) : request_(*request), pool_(*pool) {}

  Status Decode() {
    if (Status status = DecodeFields(); !status.ok()) return status;
    if (request_.model_name.empty()) return InvalidArgument("the request has no model_name");
    if (raw_count_ == 0) return CheckTyped();
    return TakeRawContents();
  }

 private:
  Status DecodeFields() {
    WireReader reader(request_.received.bytes());
    while (reader.Next()) {
      if (reader.type() != WireType::kBytes) continue;
      Status status;
      switch (reader.field()) {
        case 1:
          if (!ReadText(reader, &request_.model_name)) return Damaged("model_name");
          break;
        case 2:
          if (!ReadText(reader, &request_.model_version)) return Damaged("model_version");
          break;
        case 3:
          if (!ReadText(reader, &request_.id)) return Damaged("id");
          break;
        case 4:
          status = DecodeRequestParameter(reader.bytes());
          break;
        case 5:
          status = DecodeInput(reader.bytes());
          break;
        case 6:
          status = DecodeRequestedOutput(reader.bytes());
          break;
        case 7:
          ++raw_count_;
          break;
        default:
          break;
      }
      if (!status.ok()) return status;
    }
    return reader.ok() ? Status::Ok() : Damaged("envelope");
  }

  Status DecodeRequestParameter(std::span<const std::byte> map_entry) {
    Parameter parameter;
    if (!ReadParameter(map_entry, &parameter)) return Damaged("parameters");
    if (parameter.name == "sequence_id" && parameter.is_set) return NotServed("parameter 'sequence_id'");
    if (parameter.name != "timeout" || !parameter.is_set) return Status::Ok();
    if (!parameter.number || *parameter.number < 0) {
      return InvalidArgument("parameter 'timeout' must be a whole number of microseconds, 0 or more");
    }
    constexpr int64_t kLongestUs = std::numeric_limits<int64_t>::max() / 4000;
    if (*parameter.number < kLongestUs) {
      request_.deadline_ns = std::min(request_.deadline_ns, request_.arrival_ns + *parameter.number * 1000);
    }
    return Status::Ok();
  }

  Status DecodeInput(std::span<const std::byte> message) {
    InputTensor& input = request_.inputs.emplace_back();
    std::string_view datatype;
    WireReader reader(message);
    bool has_contents = false;
    while (reader.Next()) {
      if (reader.Is(1, WireType::kBytes)) {
        if (!ReadText(reader, &input.name)) return Damaged("input name");
      } else if (reader.Is(2, WireType::kBytes)) {
        if (!ReadText(reader, &datatype)) return Damaged("input datatype");
      } else if (reader.field() == 3) {
        if (Status status = DecodeShape(reader, input); !status.ok()) return status;
      } else if (reader.Is(4, WireType::kBytes)) {
        if (Status status = DecodeTensorParameter(reader.bytes()); !status.ok()) return status;
      } else if (reader.Is(5, WireType::kBytes)) {
        has_contents = true;
      }
    }
    if (!reader.ok()) return Damaged("input");
    if (Status status = CheckInput(&input, datatype); !status.ok()) return status;
    if (!has_contents) return Status::Ok();
    ++typed_count_;
    return DecodeTypedContents(message, Owner(input), &pool_, &request_.decoded, &input.tensor);
  }

  Status DecodeShape(const WireReader& reader, InputTensor& input) {
    if (reader.type() == WireType::kVarint) return PushDimension(reader.number(), input);
    if (reader.type() != WireType::kBytes) return Status::Ok();  // a field of another type is an unknown field
    const std::byte* at = reader.bytes().data();
    const std::byte* const end = at + reader.bytes().size();
    while (at != end) {
      uint64_t dimension = 0;
      if (!ReadVarint(&at, end, &dimension)) return Damaged("input shape");
      if (Status status = PushDimension(dimension, input); !status.ok()) return status;
    }
    return Status::Ok();
  }

  Status PushDimension(uint64_t wire, InputTensor& input) {
    const auto dimension = static_cast<int64_t>(wire);
    if (dimension < 0) {
      return InvalidArgument(Owner(input) + ": shape has the negative dimension " + std::to_string(dimension));
    }
    if (input.tensor.shape.PushBack(dimension)) return Status::Ok();
    return InvalidArgument(Owner(input) + ": at most " + std::to_string(Shape::kMaxRank) + " dimensions are supported");
  }

  Status CheckInput(InputTensor* input, std::string_view datatype) {
    input->tensor.dtype = ParseDataType(datatype);
    if (input->tensor.dtype == DataType::kInvalid) {
      return InvalidArgument(Owner(*input) + ": unknown datatype '" + std::string(datatype) +
                             "'; expected FP32, INT64, BYTES or the like");
    }
    if (input->tensor.shape.ElementCount() < 0) {
      return InvalidArgument(Owner(*input) + ": shape " + input->tensor.shape.ToString() + " has too many elements");
    }
    const auto same_name = [&](const InputTensor& other) { return other.name == input->name; };
    if (std::any_of(request_.inputs.begin(), request_.inputs.end() - 1, same_name)) {
      return InvalidArgument(Owner(*input) + " is given twice");
    }
    return Status::Ok();
  }

  Status DecodeTensorParameter(std::span<const std::byte> map_entry) {
    Parameter parameter;
    if (!ReadParameter(map_entry, &parameter)) return Damaged("parameters");
    for (std::string_view name : {"shared_memory_region", "classification"}) {
      if (parameter.name == name && parameter.is_set) return NotServed("parameter '" + std::string(name) + "'");
    }
    return Status::Ok();
  }

  Status DecodeRequestedOutput(std::span<const std::byte> message) {
    std::string_view name;
    WireReader reader(message);
    while (reader.Next()) {
      if (reader.Is(1, WireType::kBytes) && !ReadText(reader, &name)) return Damaged("output name");
      if (!reader.Is(2, WireType::kBytes)) continue;
      if (Status status = DecodeTensorParameter(reader.bytes()); !status.ok()) return status;
    }
    if (!reader.ok()) return Damaged("output");
    request_.requested_outputs.push_back(name);
    return Status::Ok();
  }

  Status CheckTyped() {
    for (const InputTensor& input : request_.inputs) {
      // An input without elements needs no contents.
      if (typed_count_ < request_.inputs.size() && input.tensor.data.empty() &&
          input.tensor.shape.ElementCount() != 0) {
        return InvalidArgument(Owner(input) + " has neither contents nor raw_input_contents");
      }
    }
    return Status::Ok();
  }

  Status TakeRawContents() {
    if (typed_count_ > 0) {
      return InvalidArgument("the request to model '" + std::string(request_.model_name) +
                             "' has both contents and raw_input_contents; all inputs must use one of them");
    }
    if (raw_count_ != request_.inputs.size()) {
      return InvalidArgument("the request to model '" + std::string(request_.model_name) + "' has " +
                             std::to_string(request_.inputs.size()) + " inputs but " + std::to_string(raw_count_) +
                             " raw_input_contents");
    }
    WireReader reader(request_.received.bytes());
    size_t index = 0;
    while (reader.Next()) {
      if (!reader.Is(7, WireType::kBytes)) continue;
      InputTensor& input = request_.inputs[index++];
      input.tensor.data = reader.bytes();
      if (Status status = CheckRaw(input); !status.ok()) return status;
    }
    return Status::Ok();
  }

  Status CheckRaw(const InputTensor& input) const {
    const TensorView& tensor = input.tensor;
    const int64_t count = tensor.shape.ElementCount();
    if (tensor.dtype == DataType::kBytes) {
      const int64_t found = ForEachBytesElement(tensor.data, [](std::span<const std::byte>) {});
      if (found == count) return Status::Ok();
      return InvalidArgument(Owner(input) + ": BYTES" + tensor.shape.ToString() + " has " + std::to_string(count) +
                             " elements but its raw contents " +
                             (found < 0 ? "end within an element" : "hold " + std::to_string(found)));
    }
    int64_t expected = 0;
    const bool overflows =
        __builtin_mul_overflow(count, static_cast<int64_t>(ElementSizeBytes(tensor.dtype)), &expected);
    if (!overflows && static_cast<uint64_t>(expected) == tensor.data.size()) return Status::Ok();
    return InvalidArgument(Owner(input) + ": " + std::string(DataTypeName(tensor.dtype)) + tensor.shape.ToString() +
                           " takes " + (overflows ? "too many" : std::to_string(expected)) +
                           " bytes but its raw contents have " + std::to_string(tensor.data.size()));
  }

  static Status NotServed(const std::string& what) { return Unimplemented(what + " is not supported by this server"); }

  std::string Owner(const InputTensor& input) const {
    return "input '" + std::string(input.name) + "' of model '" + std::string(request_.model_name) + "'";
  }

  InferRequest& request_;
  BufferPool& pool_;
  size_t typed_count_ = 0;
  size_t raw_count_ = 0;
};

}  // namespace

Status DecodeInferRequest(InferRequest* request, BufferPool* pool) { return Decoder(request, pool).Decode(); }

}  // namespace gristmill
