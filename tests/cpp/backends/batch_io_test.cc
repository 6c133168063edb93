// SPDX-License-Identifier: Apache-2.0
#include "backends/batch_io.h"

#include "backend_fixture.h"

namespace gristmill {
namespace {

struct GatheredBatch {
  explicit GatheredBatch(const std::vector<Tensor>& tensors) {
    for (const Tensor& tensor : tensors) views.push_back(tensor.view());
    for (const TensorView& view : views) {
      items.push_back({.inputs = {&view, 1}, .rows = RowCount(view.shape)});
      batch.total_rows += items.back().rows;
    }
    batch.items = items;
  }
  std::vector<TensorView> views;
  std::vector<BatchItem> items;
  Batch batch;
};

Tensor CopyOf(const TensorView& view) {
  return {.dtype = view.dtype, .shape = view.shape, .data = {view.data.begin(), view.data.end()}, .row_offsets = {}};
}

TEST(GatherInputTest, JoinsItemsInAnAlignedBuffer) {
  const std::vector<Tensor> tensors = {Floats({1, 2}, {1, 2}), Floats({2, 2}, {3, 4, 5, 6})};
  AlignedBuffer buffer;
  const TensorView gathered = GatherInput(GatheredBatch(tensors).batch, 0, &buffer);
  EXPECT_EQ(CopyOf(gathered), Floats({3, 2}, {1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(gathered.data.data()) % 64, 0u);
}

TEST(GatherInputTest, ViewsALoneAlignedItemAndCopiesAnUnalignedOne) {
  const std::vector<Tensor> tensors = {Floats({2}, {1, 2})};
  GatheredBatch gathered(tensors);
  AlignedBuffer buffer;
  EXPECT_EQ(GatherInput(gathered.batch, 0, &buffer).data.data(), tensors[0].data.data());

  std::vector<std::byte> shifted(9);
  std::ranges::copy(tensors[0].data, shifted.begin() + 1);
  gathered.views[0].data = std::span(shifted).subspan(1);
  const TensorView copied = GatherInput(gathered.batch, 0, &buffer);
  EXPECT_NE(copied.data.data(), shifted.data() + 1);
  EXPECT_EQ(CopyOf(copied), tensors[0]);
}

TEST(GatherInputTest, AnEmptyTensorStillHasAnAddress) {
  const std::vector<Tensor> tensors = {Floats({0, 2}, {})};
  AlignedBuffer buffer;
  const TensorView gathered = GatherInput(GatheredBatch(tensors).batch, 0, &buffer);
  EXPECT_NE(gathered.data.data(), nullptr);
  EXPECT_EQ(gathered.shape, (Shape{0, 2}));
}

TEST(AlignedBufferTest, GrowsAndKeepsItsMemoryWhenLessIsAsked) {
  AlignedBuffer buffer;
  EXPECT_NE(buffer.Reserve(0), nullptr);
  std::byte* large = buffer.Reserve(1000);
  EXPECT_EQ(buffer.Reserve(10), large);
  EXPECT_EQ(buffer.Reserve(1024), large);  // capacities are powers of two
}

TEST(BytesOutputTest, SerializesElementsWithRowOffsets) {
  const std::string content = "abccc";
  const std::vector<size_t> offsets = {0, 1, 1, 2};  // "a", "", "b", "ccc"
  BytesOutput output;
  const BatchOutput result = output.Serialize({2, 2}, std::as_bytes(std::span(content)), offsets);
  EXPECT_EQ(CopyOf(result.tensor), Strings({2, 2}, {"a", "", "b", "ccc"}));
  EXPECT_EQ(std::vector(result.row_offsets.begin(), result.row_offsets.end()), (std::vector<size_t>{0, 9, 21}));
}

TEST(BytesOutputTest, IndexesWhatIsAlreadyInRawForm) {
  const Tensor raw = Strings({3}, {"", "two", "3"});
  BytesOutput output;
  const BatchOutput result = output.Index(raw.view());
  EXPECT_EQ(result.tensor.data.data(), raw.data.data());
  EXPECT_EQ(std::vector(result.row_offsets.begin(), result.row_offsets.end()), (std::vector<size_t>{0, 4, 11, 16}));
}

TEST(BytesOutputTest, AScalarIsOneRow) {
  const std::string content = "x";
  BytesOutput output;
  const std::vector<size_t> offsets = {0};
  const BatchOutput result = output.Serialize({}, std::as_bytes(std::span(content)), offsets);
  EXPECT_EQ(std::vector(result.row_offsets.begin(), result.row_offsets.end()), (std::vector<size_t>{0, 5}));
}

}  // namespace
}  // namespace gristmill
