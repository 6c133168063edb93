// SPDX-License-Identifier: Apache-2.0
#include "backends/python/worker_messages.h"

#include <utility>

namespace gristmill {
namespace {

Status Damaged(const char* what) {
  return Internal(std::string("the worker process has sent ") + what + " that cannot be read");
}

bool IsDataType(uint8_t number) {
  return number > static_cast<uint8_t>(DataType::kInvalid) && number <= static_cast<uint8_t>(DataType::kBf16);
}

}  // namespace

void BodyWriter::PutText(std::string_view text) {
  Put(static_cast<uint32_t>(text.size()));
  body_.append(text);
}

void BodyWriter::PutTensor(const TensorView& tensor, uint64_t offset) {
  Put(static_cast<uint8_t>(tensor.dtype));
  Put(static_cast<uint8_t>(tensor.shape.rank()));
  for (int64_t dim : tensor.shape.dims()) Put(dim);
  Put(offset);
  Put(static_cast<uint64_t>(tensor.data.size()));
}

const std::byte* BodyReader::Take(size_t size_bytes) {
  if (size_bytes > body_.size()) ok_ = false;
  if (!ok_) return nullptr;
  const std::byte* const at = body_.data();
  body_ = body_.subspan(size_bytes);
  return at;
}

uint32_t BodyReader::GetCount(size_t element_bytes) {
  const auto count = Get<uint32_t>();
  if (count > body_.size() / element_bytes) ok_ = false;
  return ok_ ? count : 0;
}

std::string_view BodyReader::GetText() {
  const auto size = Get<uint32_t>();
  const std::byte* const at = Take(size);
  return at == nullptr ? std::string_view() : std::string_view(reinterpret_cast<const char*>(at), size);
}

TensorView BodyReader::GetTensor() {
  TensorView tensor;
  const auto dtype = Get<uint8_t>();
  const auto rank = Get<uint8_t>();
  if (!IsDataType(dtype) || rank > Shape::kMaxRank) ok_ = false;
  for (uint8_t i = 0; ok_ && i < rank; ++i) tensor.shape.PushBack(Get<int64_t>());
  const auto offset = Get<uint64_t>();
  const auto size_bytes = Get<uint64_t>();
  if (!ok_ || !arena_.View(offset, size_bytes, &tensor.data)) {
    ok_ = false;
    return {};
  }
  tensor.dtype = static_cast<DataType>(dtype);
  const int64_t count = tensor.shape.ElementCount();
  const int64_t element_bytes = static_cast<int64_t>(ElementSizeBytes(tensor.dtype));
  if (element_bytes > 0) {
    ok_ = count >= 0 && count <= static_cast<int64_t>(SharedArena::kSizeBytes) &&
          static_cast<uint64_t>(count * element_bytes) == size_bytes;
  } else {
    ok_ = count >= 0 && ForEachBytesElement(tensor.data, [](std::span<const std::byte>) {}) == count;
  }
  return ok_ ? tensor : TensorView{};
}

Status ReadStatus(BodyReader* reader) {
  const auto code = reader->Get<uint32_t>();
  std::string message(reader->GetText());
  if (code > static_cast<uint32_t>(StatusCode::kUnauthenticated)) reader->Fail();
  if (code == 0 || !reader->ok()) return Status::Ok();
  return {static_cast<StatusCode>(code), std::move(message)};
}

ItemAnswer ReadAnswer(BodyReader* reader, const ModelConfig& config) {
  ItemAnswer answer{.status = ReadStatus(reader), .outputs = std::vector<TensorView>(config.outputs.size())};
  const uint32_t count = reader->GetCount(sizeof(uint32_t));
  for (uint32_t i = 0; i < count; ++i) {
    const auto index = reader->Get<uint32_t>();
    const TensorView tensor = reader->GetTensor();
    if (index >= config.outputs.size()) reader->Fail();
    if (!reader->ok()) return answer;
    const TensorSpec& spec = config.outputs[index];
    if (tensor.dtype != spec.dtype && answer.status.ok()) {
      answer.status = Internal("output '" + spec.name + "' of model '" + config.name + "' is " +
                               std::string(DataTypeName(tensor.dtype)) + ", its configuration says " +
                               std::string(DataTypeName(spec.dtype)));
    }
    answer.outputs[index] = tensor;
  }
  return answer;
}

Status ReadAnswers(std::span<const std::byte> body, const SharedArena& arena, const ModelConfig& config, size_t items,
                   std::vector<ItemAnswer>* answers) {
  BodyReader reader(body, &arena);
  Status status = ReadStatus(&reader);
  answers->clear();
  if (!reader.ok()) return Damaged("answers");
  if (!status.ok()) return status;
  const uint32_t count = reader.GetCount(sizeof(uint32_t));
  for (uint32_t i = 0; i < count && reader.ok(); ++i) answers->push_back(ReadAnswer(&reader, config));
  if (reader.is_whole() && answers->size() == items) return Status::Ok();
  answers->clear();
  return Damaged("answers");
}

Status ReadCall(std::span<const std::byte> body, const SharedArena& arena, uint64_t* number, ModelCall* call) {
  BodyReader reader(body, &arena);
  *number = reader.Get<uint64_t>();
  call->model = reader.GetText();
  call->version = reader.GetText();
  call->id = reader.GetText();
  call->sequence.number = reader.Get<uint64_t>();
  call->sequence_name = reader.GetText();
  const auto flags = reader.Get<uint8_t>();
  call->sequence.start = (flags & 1) != 0;
  call->sequence.end = (flags & 2) != 0;
  call->timeout_us = reader.Get<int64_t>();
  call->priority = reader.Get<uint64_t>();
  const uint32_t outputs = reader.GetCount(sizeof(uint32_t));
  for (uint32_t i = 0; i < outputs && reader.ok(); ++i) call->outputs.emplace_back(reader.GetText());
  const uint32_t inputs = reader.GetCount(sizeof(uint32_t));
  for (uint32_t i = 0; i < inputs && reader.ok(); ++i) {
    std::string name(reader.GetText());
    call->inputs.push_back({.name = std::move(name), .tensor = reader.GetTensor()});
  }
  return reader.is_whole() && call->timeout_us >= 0 ? Status::Ok() : Damaged("a call of another model");
}

}  // namespace gristmill
