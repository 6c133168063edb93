// SPDX-License-Identifier: Apache-2.0
// Any bytes at all from a worker process, as a body and as its memory: an error or tensors that lie in that memory and
// are as long as their shapes say.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "backends/python/worker_messages.h"
#include "fuzz/checks.h"

namespace {

using namespace gristmill;  // NOLINT

constexpr size_t kMemoryBytes = 1 << 16;

struct Fixture {
  std::unique_ptr<SharedArena> arena;
  std::byte* memory = nullptr;
  ModelConfig config{.name = "m", .outputs = {{"y", DataType::kInt32, {-1}}, {"t", DataType::kBytes, {-1}}}};

  Fixture() {
    // Small, since all that is read of it takes memory.
    Check(SharedArena::Create(&arena, kMemoryBytes).ok());
    memory = arena->Allocate(kMemoryBytes);
  }
};

void CheckTensor(const TensorView& tensor, const SharedArena& arena) {
  if (tensor.dtype == DataType::kInvalid) return;
  std::span<const std::byte> inside;
  Check(arena.View(arena.OffsetOf(tensor.data.data()), tensor.data.size(), &inside));
  CheckSize(tensor);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Fixture fixture;
  const std::span<const std::byte> body = std::as_bytes(std::span(data, size));
  std::ranges::copy(body.first(std::min(size, kMemoryBytes)), fixture.memory);
  std::vector<ItemAnswer> answers;
  for (const size_t items : {size_t{1}, size_t{2}}) {
    if (!ReadAnswers(body, *fixture.arena, fixture.config, items, &answers).ok()) continue;
    for (const ItemAnswer& answer : answers) {
      for (const TensorView& output : answer.outputs) CheckTensor(output, *fixture.arena);
    }
  }
  uint64_t number = 0;
  ModelCall call;
  if (ReadCall(body, *fixture.arena, &number, &call).ok()) {
    for (const ModelCall::Input& input : call.inputs) CheckTensor(input.tensor, *fixture.arena);
  }
  return 0;
}
