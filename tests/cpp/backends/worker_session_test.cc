// SPDX-License-Identifier: Apache-2.0
// A session with a real worker process. What a model may do wrong is in tests/e2e/test_python_models.py; here is what
// threads may do to each other.
#include "backends/python/worker_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

namespace gristmill {
namespace {

using testing::HasSubstr;

constexpr const char* kHead = "import numpy as np, os, threading, time\nimport triton_python_backend_utils as pb\n";
constexpr const char* kEcho = R"(
class TritonPythonModel:
    def execute(self, requests):
        out = []
        for r in requests:
            x = r.inputs()[0].as_numpy()
            if x[0] == 13:
                os._exit(1)
            if x[0] == 14:
                time.sleep(1000)
            if x[0] == 15:
                a = pb.InferenceRequest(model_name="other", inputs=r.inputs()).exec()
                out.append(pb.InferenceResponse(a.output_tensors(), a.error()))
                continue
            out.append(pb.InferenceResponse([pb.Tensor("y", x + 1)]))
        return out
)";
constexpr const char* kStream = R"(
class TritonPythonModel:
    def execute(self, requests):
        for r in requests:
            threading.Thread(target=self.run, args=(r.get_response_sender(), r.inputs()[0].as_numpy()[0])).start()
    def run(self, sender, count):
        for i in range(count):
            sender.send(pb.InferenceResponse([pb.Tensor("y", np.array([i], np.int32))]))
        sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
)";

/// Answers each call by a thread of its own, with y = 7.
class FakeCaller final : public ModelCaller {
 public:
  ~FakeCaller() override {
    for (std::thread& thread : threads_) thread.join();
  }
  void Call(ModelCall call, Done done) override {
    EXPECT_TRUE(call.waiting_models->contains("m"));
    threads_.emplace_back([name = call.model, done = std::move(done)] {
      static constexpr int32_t kSeven = 7;
      const std::vector<OutputTensor> outputs = {
          {"y", {DataType::kInt32, Shape{1}, std::as_bytes(std::span(&kSeven, 1))}}};
      const InferResponse response{.model_name = name, .outputs = outputs};
      done(Status::Ok(), &response);
    });
  }

 private:
  std::vector<std::thread> threads_;
};

class CountingStream final : public AnswerStream {
 public:
  void Send(std::span<const TensorView>) override { ++sent; }
  void End(const Status& status) override {
    MutexLock lock(mu_);
    end_ = std::make_unique<Status>(status);
    ended_.NotifyAll();
  }
  bool is_cancelled() const override { return false; }
  Status Await() {
    MutexLock lock(mu_);
    while (end_ == nullptr) ended_.Wait(mu_);
    return *end_;
  }

  std::atomic<int> sent{0};

 private:
  Mutex mu_;
  CondVar ended_;
  std::unique_ptr<Status> end_ GUARDED_BY(mu_);
};

class WorkerSessionTest : public testing::Test {
 protected:
  void Start(const std::string& model, bool decoupled = false) {
    const std::filesystem::path directory =
        std::filesystem::path(testing::TempDir()) /
        (std::string(testing::UnitTest::GetInstance()->current_test_info()->name()) + std::to_string(getpid()));
    std::filesystem::create_directories(directory);
    std::ofstream(directory / "model.py") << kHead << model;
    const std::string tensors = R"("input": [{"name": "x"}], "output": [{"name": "y"}], "model_transaction_policy": )";
    WorkerOptions options{
        .command = {GRISTMILL_TEST_PYTHON, GRISTMILL_TEST_WORKER},
        .properties = {{"model_path", (directory / "model.py").string()},
                       {"model_name", "m"},
                       {"model_config",
                        "{" + tensors + (decoupled ? R"({"decoupled": true}})" : R"({"decoupled": false}})")}},
        .config = {.name = "m", .outputs = {{"y", DataType::kInt32, {-1}}}, .decoupled = decoupled},
        .clock = &SystemClock(),
        .caller = &caller_};
    status_ = WorkerSession::Start(std::move(options), &session_);
  }

  void TearDown() override {
    if (session_ != nullptr) session_->Stop(10'000'000'000);
  }

  /// The first output, or the error.
  Status Execute(int32_t x, int32_t* y, std::shared_ptr<AnswerStream> answers = nullptr, int64_t limit_ns = 0) {
    const TensorView input{DataType::kInt32, Shape{1}, std::as_bytes(std::span(&x, 1))};
    const BatchItem item{.inputs = {&input, 1}, .rows = 1, .answers = std::move(answers)};
    std::vector<ItemAnswer> out;
    const Status status = session_->Execute({.items = {&item, 1}, .total_rows = 1}, limit_ns, &out);
    if (status.ok() && !out.empty()) {
      if (!out[0].status.ok()) return out[0].status;
      std::memcpy(y, out[0].outputs[0].data.data(), sizeof *y);
    }
    return status;
  }

  FakeCaller caller_;
  std::shared_ptr<WorkerSession> session_;
  Status status_;
};

TEST_F(WorkerSessionTest, AnswersAndAsksOthers) {
  Start(kEcho);
  ASSERT_TRUE(status_.ok()) << status_.message();
  int32_t y = 0;
  for (int32_t x = 0; x < 10; ++x) {
    ASSERT_TRUE(Execute(x, &y).ok());
    EXPECT_EQ(y, x + 1);
  }
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(Execute(15, &y).ok());
    EXPECT_EQ(y, 7);
  }
}

TEST_F(WorkerSessionTest, TellsOfItsDeath) {
  Start(kEcho);
  int32_t y = 0;
  EXPECT_THAT(Execute(13, &y).message(), HasSubstr("ended with status 1"));
  EXPECT_TRUE(session_->is_dead());
  EXPECT_EQ(Execute(1, &y).code(), StatusCode::kUnavailable);
}

TEST_F(WorkerSessionTest, EndsAWorkerThatTakesTooLong) {
  Start(kEcho);
  int32_t y = 0;
  EXPECT_THAT(Execute(14, &y, nullptr, 300'000'000).message(), HasSubstr("took longer than its limit"));
}

TEST_F(WorkerSessionTest, TellsWhyAModelCannotBeInitialized) {
  Start("raise RuntimeError('no')\n");
  EXPECT_EQ(status_.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status_.message(), HasSubstr("RuntimeError: no"));
}

TEST_F(WorkerSessionTest, StreamsAnswersOfManyRequests) {
  Start(kStream, true);
  ASSERT_TRUE(status_.ok()) << status_.message();
  std::vector<std::shared_ptr<CountingStream>> streams;
  int32_t y = 0;
  for (int i = 0; i < 8; ++i) {
    streams.push_back(std::make_shared<CountingStream>());
    ASSERT_TRUE(Execute(500, &y, streams.back()).ok());
  }
  for (const auto& stream : streams) {
    EXPECT_TRUE(stream->Await().ok());
    EXPECT_EQ(stream->sent, 500);
  }
}

TEST_F(WorkerSessionTest, StopEndsStreams) {
  Start("class TritonPythonModel:\n    def execute(self, requests): pass\n", true);
  const auto stream = std::make_shared<CountingStream>();
  int32_t y = 0;
  ASSERT_TRUE(Execute(1, &y, stream).ok());
  session_->Stop(1'000'000'000);
  EXPECT_EQ(stream->Await().code(), StatusCode::kUnavailable);
}

}  // namespace
}  // namespace gristmill
