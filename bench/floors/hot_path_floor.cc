// SPDX-License-Identifier: Apache-2.0
// What one batched prediction costs when only the necessary is done: nghttp2, a view on the raw input, one queue, one
// executor thread that takes whatever is queued, ONNX Runtime on one thread, one wake-up of the network per batch.
//
//   hot_path_floor PORT REPLY MODEL LIBONNXRUNTIME
//
// MODEL: INPUT0 float32[N,16] -> OUTPUT0 float32[N,1]. Requests hold one row. REPLY: a file with a serialized
// ModelInferResponse that ends with its one float32, which each answer replaces.
#include <sys/eventfd.h>

#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "floor_server.h"
#include "mlp_model.h"

namespace {

using floors::MlpModel;
using floors::Stream;

constexpr size_t kFrameHeadBytes = 5;
constexpr uint64_t kRawInputContents = 7;  // the field of ModelInferRequest
constexpr uint64_t kLengthDelimited = 2;

uint64_t Varint(const char*& at, const char* end) {
  uint64_t value = 0;
  for (int shift = 0; at < end && shift < 64; shift += 7) {
    const auto byte = static_cast<uint8_t>(*at++);
    value |= uint64_t{byte & 0x7fU} << shift;
    if (byte < 0x80) break;
  }
  return value;
}

// The raw input of a framed request. Ends the process if it is not one row.
const char* FindRow(const std::string& body) {
  const char* at = body.data() + std::min(kFrameHeadBytes, body.size());
  const char* const end = body.data() + body.size();
  while (at < end) {
    const uint64_t tag = Varint(at, end);
    const uint64_t value = Varint(at, end);
    if ((tag & 7) != kLengthDelimited) continue;
    if (value > static_cast<uint64_t>(end - at)) break;
    if (tag >> 3 == kRawInputContents && value == MlpModel::kWidth * sizeof(float)) return at;
    at += value;
  }
  floors::Die("expected one row of 16 float32 in raw_input_contents");
}

class HotPath : public floors::Handler {
 public:
  HotPath(std::string reply, MlpModel& model) : reply_(std::move(reply)), model_(model), server_(*this) {}

  void OnRequest(Stream* stream) override { arrived_.push_back(stream); }

  // Hand over all that one round of input has brought under one lock.
  void OnInputRead() override {
    if (arrived_.empty()) return;
    bool wake = false;
    {
      const std::lock_guard lock(queue_mu_);
      queue_.insert(queue_.end(), arrived_.begin(), arrived_.end());
      wake = idle_;
    }
    arrived_.clear();
    if (wake) queued_.notify_one();
  }

  void OnWakeUp() override {
    uint64_t count = 0;
    if (read(done_fd_, &count, sizeof(count)) < 0) return;
    {
      const std::lock_guard lock(done_mu_);
      answers_.swap(done_);
    }
    for (Stream* stream : answers_) {
      stream->reply = stream->reply_storage;
      server_.Answer(stream);
    }
    answers_.clear();
  }

  [[noreturn]] void Run(uint16_t port) {
    server_.Watch(done_fd_);
    std::thread([this] { Execute(); }).detach();
    server_.Run(port);
  }

 private:
  [[noreturn]] void Execute() {
    std::vector<Stream*> batch;
    for (;;) {
      TakeBatch(batch);
      for (size_t i = 0; i < batch.size(); ++i) {
        std::memcpy(model_.row(i), FindRow(batch[i]->body), MlpModel::kWidth * sizeof(float));
      }
      model_.Run(batch.size());
      for (size_t i = 0; i < batch.size(); ++i) {
        std::string& reply = batch[i]->reply_storage;
        reply = reply_;
        std::memcpy(reply.data() + reply.size() - sizeof(float), &model_.output(i), sizeof(float));
      }
      {
        const std::lock_guard lock(done_mu_);
        done_.insert(done_.end(), batch.begin(), batch.end());
      }
      const uint64_t one = 1;
      if (write(done_fd_, &one, sizeof(one)) < 0) floors::Die("cannot wake the network thread");
    }
  }

  void TakeBatch(std::vector<Stream*>& batch) {
    std::unique_lock lock(queue_mu_);
    idle_ = queue_.empty();
    queued_.wait(lock, [this] { return !queue_.empty(); });
    idle_ = false;
    const auto end = queue_.begin() + static_cast<std::ptrdiff_t>(std::min(queue_.size(), MlpModel::kMaxRows));
    batch.assign(queue_.begin(), end);
    queue_.erase(queue_.begin(), end);
  }

  const std::string reply_;
  const int done_fd_ = eventfd(0, EFD_NONBLOCK);
  MlpModel& model_;  // the executor thread's
  // The network thread's.
  floors::FloorServer server_;
  std::vector<Stream*> arrived_;
  std::vector<Stream*> answers_;

  std::mutex queue_mu_;
  std::condition_variable queued_;
  std::vector<Stream*> queue_;  // guarded by queue_mu_
  bool idle_ = false;           // guarded by queue_mu_
  std::mutex done_mu_;
  std::vector<Stream*> done_;  // guarded by done_mu_
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) floors::Die("expected the arguments PORT REPLY MODEL LIBONNXRUNTIME");
  static MlpModel model(argv[4], argv[3]);
  static HotPath handler(floors::ReadReply(argv[2]), model);
  handler.Run(static_cast<uint16_t>(std::atoi(argv[1])));
}
