// SPDX-License-Identifier: Apache-2.0
#include "protocol/infer_request_decoder.h"

#include <algorithm>
#include <cstring>
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

// A hostile request names more tensors than any model has, a few bytes each.
constexpr size_t kMaxTensors = 65'536;

bool ReadText(const WireReader& reader, std::string_view* text) {
  *text = AsText(reader.bytes());
  return IsUtf8(*text);
}

/// The value of an InferParameter, as far as the server acts on one.
struct ParameterValue {
  bool is_set = false;             // neither false, zero nor empty
  std::optional<uint64_t> number;  // of an integer parameter that is not negative
  std::optional<bool> flag;        // of a boolean one
  std::string_view text;           // of a string
};

/// Reads the field of the oneof that comes last, as protobuf does.
bool ReadParameterValue(std::span<const std::byte> message, ParameterValue* value) {
  WireReader reader(message);
  while (reader.Next()) {
    if (reader.Is(1, WireType::kVarint)) {
      *value = {.is_set = reader.number() != 0, .number = {}, .flag = reader.number() != 0, .text = {}};
    } else if (reader.Is(2, WireType::kVarint)) {
      *value = {.is_set = reader.number() != 0, .number = {}, .flag = {}, .text = {}};
      if (static_cast<int64_t>(reader.number()) >= 0) value->number = reader.number();
    } else if (reader.Is(3, WireType::kBytes)) {
      *value = {.is_set = !reader.bytes().empty(), .number = {}, .flag = {}, .text = AsText(reader.bytes())};
      if (!IsUtf8(value->text)) return false;
    } else if (reader.Is(4, WireType::kFixed64)) {
      double number = 0;
      std::memcpy(&number, reader.bytes().data(), sizeof number);
      *value = {.is_set = number != 0, .number = {}, .flag = {}, .text = {}};
    } else if (reader.Is(5, WireType::kVarint)) {
      *value = {.is_set = reader.number() != 0, .number = reader.number(), .flag = {}, .text = {}};
    }
  }
  return reader.ok();
}

/// Reads one entry of a `parameters` map. Of entries with the same key the last counts, so the caller overwrites.
bool ReadParameter(std::span<const std::byte> map_entry, std::string_view* name, ParameterValue* value) {
  *name = {};
  *value = {};
  WireReader reader(map_entry);
  while (reader.Next()) {
    if (reader.Is(1, WireType::kBytes) && !ReadText(reader, name)) return false;
    if (reader.Is(2, WireType::kBytes) && !ReadParameterValue(reader.bytes(), value)) return false;
  }
  return reader.ok();
}

/// The parameters of an input or of a requested output.
struct TensorParameters {
  bool shared_memory = false;
  bool classification = false;
};

bool ReadTensorParameter(std::span<const std::byte> map_entry, TensorParameters* parameters) {
  std::string_view name;
  ParameterValue value;
  if (!ReadParameter(map_entry, &name, &value)) return false;
  if (name == "shared_memory_region") parameters->shared_memory = value.is_set;
  if (name == "classification") parameters->classification = value.is_set;
  return true;
}

Status NotServed(std::string_view parameter) {
  return Unimplemented("parameter '" + std::string(parameter) + "' is not supported by this server");
}

Status WrongParameter(std::string_view parameter, std::string_view expected) {
  return InvalidArgument("parameter '" + std::string(parameter) + "' must be " + std::string(expected));
}

Status CheckServed(const TensorParameters& parameters) {
  if (parameters.shared_memory) return NotServed("shared_memory_region");
  if (parameters.classification) return NotServed("classification");
  return Status::Ok();
}

class Decoder {
 public:
  Decoder(InferRequest* request, BufferPool* pool) : request_(*request), pool_(*pool) {}

  Status Decode() {
    if (Status status = DecodeFields(); !status.ok()) return status;
    if (Status status = ApplyParameters(); !status.ok()) return status;
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
    std::string_view name;
    ParameterValue value;
    if (!ReadParameter(map_entry, &name, &value)) return Damaged("parameters");
    if (name == "sequence_id") sequence_id_ = value;
    if (name == "sequence_start") sequence_start_ = value;
    if (name == "sequence_end") sequence_end_ = value;
    if (name == "priority") priority_ = value;
    if (name == "timeout") timeout_us_ = value;
    if (name == "triton_enable_empty_final_response") final_response_ = value;
    return Status::Ok();
  }

  Status ApplyParameters() {
    if (sequence_id_.is_set && !sequence_id_.number && sequence_id_.text.empty()) {
      return WrongParameter("sequence_id", "a whole number, 0 or more, or a string");
    }
    if (sequence_start_.is_set && !sequence_start_.flag) return WrongParameter("sequence_start", "a boolean");
    if (sequence_end_.is_set && !sequence_end_.flag) return WrongParameter("sequence_end", "a boolean");
    if (priority_.is_set && !priority_.number) return WrongParameter("priority", "a whole number, 0 or more");
    if (timeout_us_.is_set && !timeout_us_.number) {
      return WrongParameter("timeout", "a whole number of microseconds, 0 or more");
    }
    request_.sequence = {.number = sequence_id_.number.value_or(0),
                         .name = sequence_id_.text,
                         .start = sequence_start_.is_set,
                         .end = sequence_end_.is_set};
    request_.priority = priority_.number.value_or(0);
    request_.wants_final_response = final_response_.flag.value_or(false);
    // One beyond this, of 73,000 years, is as good as none, and its nanoseconds would not fit.
    constexpr uint64_t kLongestUs = std::numeric_limits<int64_t>::max() / 4000;
    const uint64_t timeout_us = timeout_us_.number.value_or(0);
    if (timeout_us < kLongestUs) request_.timeout_us = static_cast<int64_t>(timeout_us);
    return Status::Ok();
  }

  Status DecodeInput(std::span<const std::byte> message) {
    if (request_.inputs.size() == kMaxTensors) return TooMany("inputs");
    InputTensor& input = request_.inputs.emplace_back();
    std::string_view datatype;
    TensorParameters parameters;
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
        if (!ReadTensorParameter(reader.bytes(), &parameters)) return Damaged("parameters");
      } else if (reader.Is(5, WireType::kBytes)) {
        has_contents = true;
      }
    }
    if (!reader.ok()) return Damaged("input");
    if (Status status = CheckServed(parameters); !status.ok()) return status;
    if (Status status = SetType(datatype, &input); !status.ok()) return status;
    if (!has_contents) return Status::Ok();
    ++typed_count_;
    Status status = DecodeTypedContents(message, &pool_, &request_.decoded, &input.tensor);
    return status.ok() ? status : InvalidArgument(Owner(input) + ": " + status.message());
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

  Status SetType(std::string_view datatype, InputTensor* input) {
    input->tensor.dtype = ParseDataType(datatype);
    if (input->tensor.dtype == DataType::kInvalid) {
      return InvalidArgument(Owner(*input) + ": unknown datatype '" + std::string(datatype) +
                             "'; expected FP32, INT64, BYTES or the like");
    }
    if (input->tensor.shape.ElementCount() < 0) {
      return InvalidArgument(Owner(*input) + ": shape " + input->tensor.shape.ToString() + " has too many elements");
    }
    return Status::Ok();
  }

  Status DecodeRequestedOutput(std::span<const std::byte> message) {
    if (request_.requested_outputs.size() == kMaxTensors) return TooMany("requested outputs");
    std::string_view name;
    TensorParameters parameters;
    WireReader reader(message);
    while (reader.Next()) {
      if (reader.Is(1, WireType::kBytes) && !ReadText(reader, &name)) return Damaged("output name");
      if (reader.Is(2, WireType::kBytes) && !ReadTensorParameter(reader.bytes(), &parameters)) {
        return Damaged("parameters");
      }
    }
    if (!reader.ok()) return Damaged("output");
    if (Status status = CheckServed(parameters); !status.ok()) return status;
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

  Status TooMany(std::string_view what) const {
    return InvalidArgument("the request to model '" + ModelName() + "' has more than " + std::to_string(kMaxTensors) +
                           " " + std::string(what));
  }

  std::string Owner(const InputTensor& input) const {
    return "input '" + std::string(input.name) + "' of model '" + ModelName() + "'";
  }

  /// For messages: the fields may come in any order, so the name may stand after what is wrong.
  std::string ModelName() const {
    std::string_view name;
    WireReader reader(request_.received.bytes());
    while (reader.Next()) {
      if (reader.Is(1, WireType::kBytes)) name = AsText(reader.bytes());
    }
    return IsUtf8(name) ? std::string(name) : "";
  }

  InferRequest& request_;
  BufferPool& pool_;
  ParameterValue sequence_id_;
  ParameterValue sequence_start_;
  ParameterValue sequence_end_;
  ParameterValue priority_;
  ParameterValue timeout_us_;
  ParameterValue final_response_;
  size_t typed_count_ = 0;
  size_t raw_count_ = 0;
};

}  // namespace

Status DecodeInferRequest(InferRequest* request, BufferPool* pool) { return Decoder(request, pool).Decode(); }

}  // namespace gristmill
