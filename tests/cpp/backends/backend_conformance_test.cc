// SPDX-License-Identifier: Apache-2.0
// What every backend owes the engine, run for each of them on models that mean the same.
#include <algorithm>
#include <functional>
#include <map>
#include <thread>

#include "backend_fixture.h"

namespace gristmill {
namespace {

const std::vector<DataType> kAllTypes = {DataType::kBool,   DataType::kUint8, DataType::kUint16, DataType::kUint32,
                                         DataType::kUint64, DataType::kInt8,  DataType::kInt16,  DataType::kInt32,
                                         DataType::kInt64,  DataType::kFp16,  DataType::kFp32,   DataType::kFp64,
                                         DataType::kBytes,  DataType::kBf16};

struct BackendCase {
  std::string name;
  Parameters parameters;
  std::function<std::string(const std::string& model)> model_path;
};

void PrintTo(const BackendCase& backend, std::ostream* stream) { *stream << backend.name; }

std::string SimModelPath(const std::string& model) {
  static const std::map<std::string, std::string> texts = {
      {"two_outputs",
       "input A FP32 -1 4\ninput B INT64 -1 2\n"
       "output B_OUT INT64 -1 2 = identity B\noutput TOTAL FP32 -1 = row_sum A\n"},
      {"no_batch", "input X FP32 3 2\noutput Y FP32 3 2 = identity X\n"},
      {"scalar", "input X FP32\noutput Y FP32 = identity X\n"},
      {"poisoned", "input IDS INT64 -1\noutput IDS_OUT INT64 -1 = identity IDS\npoison IDS 666\n"}};
  const auto text = texts.find(model);
  if (text != texts.end()) return WriteFile(model + ".sim", text->second);
  const std::string dtype = model.substr(std::string("identity_").size());
  return WriteFile(model + ".sim", "input X " + dtype + " -1 -1\noutput Y " + dtype + " -1 -1 = identity X\n");
}

std::vector<BackendCase> AllBackends() {
  std::vector<BackendCase> backends = {{.name = "sim", .parameters = {}, .model_path = SimModelPath}};
#ifdef GRISTMILL_ONNXRUNTIME_LIBRARY
  backends.push_back(
      {.name = "onnxruntime",
       .parameters = {{"library_path", GRISTMILL_ONNXRUNTIME_LIBRARY}, {"intra_op_threads", "2"}},
       .model_path = [](const std::string& model) { return GRISTMILL_ONNX_MODELS "/" + model + ".onnx"; }});
#endif
  return backends;
}

class BackendConformanceTest : public BackendTest, public testing::WithParamInterface<BackendCase> {
 protected:
  void SetUp() override { Start(GetParam().name, GetParam().parameters); }

  BackendModel& OpenNamed(const std::string& model) { return Open(GetParam().model_path(model)); }

  Status TryOpen(const std::string& path, const Parameters& parameters) {
    std::unique_ptr<BackendModel> model;
    Status status = backend_->OpenModel({.path = path, .parameters = parameters}, &model);
    EXPECT_EQ(status.ok(), model != nullptr);
    return status;
  }
};

TEST_P(BackendConformanceTest, HasNameAndVersion) {
  EXPECT_EQ(backend_->name(), GetParam().name);
  EXPECT_FALSE(backend_->version().empty());
}

TEST_P(BackendConformanceTest, RefusesAnotherAbiAndAMissingClock) {
  std::unique_ptr<Backend> backend;
  const CreateBackendFunction create = LoadPlugin(GetParam().name);
  const Status abi = create(kBackendAbiVersion + 1, {.clock = &clock_, .parameters = GetParam().parameters}, &backend);
  EXPECT_EQ(abi.code(), StatusCode::kFailedPrecondition);
  const Status clock = create(kBackendAbiVersion, {.clock = nullptr, .parameters = GetParam().parameters}, &backend);
  EXPECT_EQ(clock.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(backend, nullptr);
}

TEST_P(BackendConformanceTest, RefusesUnknownBackendParameter) {
  std::unique_ptr<Backend> backend;
  Parameters parameters = GetParam().parameters;
  parameters["threadz"] = "1";
  const Status status =
      LoadPlugin(GetParam().name)(kBackendAbiVersion, {.clock = &clock_, .parameters = parameters}, &backend);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(Contains(status.message(), "'threadz'; known are: ")) << status.message();
}

TEST_P(BackendConformanceTest, OpenErrorsNameTheFileAndLeaveTheBackendUsable) {
  const std::string missing = testing::TempDir() + "/nowhere/model";
  const Status not_found = TryOpen(missing, {});
  EXPECT_EQ(not_found.code(), StatusCode::kNotFound) << not_found.message();
  EXPECT_TRUE(Contains(not_found.message(), missing)) << not_found.message();

  const std::string garbage = WriteFile("garbage_model", std::string("\x07garbage\0\xff not a model\n", 23));
  const Status refused = TryOpen(garbage, {});
  EXPECT_EQ(refused.code(), StatusCode::kInvalidArgument) << refused.message();
  EXPECT_TRUE(Contains(refused.message(), garbage)) << refused.message();

  const Status unknown = TryOpen(GetParam().model_path("no_batch"), {{"speed", "high"}});
  EXPECT_EQ(unknown.code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(Contains(unknown.message(), "unknown parameter 'speed'; known are: ")) << unknown.message();

  const auto instance = Instance(OpenNamed("no_batch"), 0);
  EXPECT_EQ(Outputs(*instance, {{RampFloats({3, 2}, 1)}}), std::vector{RampFloats({3, 2}, 1)});
}

TEST_P(BackendConformanceTest, SignatureIsTheFiles) {
  const ModelSignature& signature = OpenNamed("two_outputs").signature();
  ASSERT_EQ(signature.inputs.size(), 2u);
  EXPECT_EQ(signature.inputs[0].name, "A");
  EXPECT_EQ(signature.inputs[0].dtype, DataType::kFp32);
  EXPECT_EQ(signature.inputs[0].dims, (std::vector<int64_t>{-1, 4}));
  EXPECT_EQ(signature.inputs[1].name, "B");
  EXPECT_EQ(signature.inputs[1].dtype, DataType::kInt64);
  ASSERT_EQ(signature.outputs.size(), 2u);
  EXPECT_EQ(signature.outputs[0].name, "B_OUT");
  EXPECT_EQ(signature.outputs[0].dims, (std::vector<int64_t>{-1, 2}));
  EXPECT_EQ(signature.outputs[1].name, "TOTAL");
  EXPECT_EQ(signature.outputs[1].dims, (std::vector<int64_t>{-1}));
}

TEST_P(BackendConformanceTest, RefusesAConfigurationThatContradictsTheFile) {
  BackendModel& model = OpenNamed("two_outputs");
  ModelConfig config = ConfigFrom(model.signature(), 8);
  config.inputs[0].dtype = DataType::kFp64;
  std::unique_ptr<BackendInstance> instance;
  const Status status = model.CreateInstance(config, &instance);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(instance, nullptr);
  EXPECT_TRUE(Contains(status.message(), "input 'A'")) << status.message();
}

TEST_P(BackendConformanceTest, BatchEqualsOneByOne) {
  const auto instance = Instance(OpenNamed("two_outputs"), 64);
  std::vector<Request> requests;
  for (const int rows : {1, 3, 2, 8}) {
    requests.push_back(
        {RampFloats({rows, 4}, rows * 100), Ids({rows, 2}, std::vector<int64_t>(size_t(rows) * 2, rows))});
  }
  const std::vector<Tensor> batched = Outputs(*instance, requests);
  ASSERT_EQ(batched.size(), 2u);
  EXPECT_EQ(batched[0].shape, (Shape{14, 2}));
  EXPECT_EQ(batched[1].shape, (Shape{14}));
  EXPECT_EQ(batched, OutputsOneByOne(*instance, requests));
}

TEST_P(BackendConformanceTest, TensorsFollowTheConfigurationsOrder) {
  BackendModel& model = OpenNamed("two_outputs");
  ModelConfig config = ConfigFrom(model.signature(), 8);
  std::ranges::reverse(config.inputs);
  std::ranges::reverse(config.outputs);
  const auto instance = Instance(model, config);
  const Tensor ids = Ids({2, 2}, {1, 2, 3, 4});
  EXPECT_EQ(Outputs(*instance, {{ids, Floats({2, 4}, {1, 2, 3, 4, 5, 6, 7, 8})}}),
            (std::vector{Floats({2}, {10, 26}), ids}));
}

TEST_P(BackendConformanceTest, GivesOnlyTheConfiguredOutputs) {
  BackendModel& model = OpenNamed("two_outputs");
  ModelConfig config = ConfigFrom(model.signature(), 8);
  config.outputs.erase(config.outputs.begin());
  const auto instance = Instance(model, config);
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(Outputs(*instance, {{Floats({1, 4}, {1, 2, 3, 4}), Ids({1, 2}, {0, 0})}}),
              std::vector{Floats({1}, {10})});
  }
}

TEST_P(BackendConformanceTest, CarriesEveryDataType) {
  for (const DataType dtype : kAllTypes) {
    SCOPED_TRACE(DataTypeName(dtype));
    const auto instance = Instance(OpenNamed("identity_" + std::string(DataTypeName(dtype))), 16);
    Tensor small{.dtype = dtype, .shape = {1, 3}, .data = {}, .row_offsets = {}};
    Tensor large{.dtype = dtype, .shape = {4, 3}, .data = {}, .row_offsets = {}};
    if (dtype == DataType::kBytes) {
      small = Strings({1, 3}, {"a", "", "ccc"});
      large = Strings({4, 3}, {"1", "2", "3", "4", "5", "6", "7", "8", "9", "", "", "twelve"});
    } else {
      for (Tensor* tensor : {&small, &large}) {
        // Any bits are a value of every fixed-size type but BOOL.
        const size_t size_bytes = static_cast<size_t>(tensor->shape.ElementCount()) * ElementSizeBytes(dtype);
        for (size_t i = 0; i < size_bytes; ++i) {
          tensor->data.push_back(static_cast<std::byte>(dtype == DataType::kBool ? i % 2 : i * 7 + 1));
        }
      }
    }
    Tensor both = small;
    both.shape[0] = 5;
    both.data.insert(both.data.end(), large.data.begin(), large.data.end());
    EXPECT_EQ(Outputs(*instance, {{small}, {large}}), std::vector{both});
    EXPECT_EQ(Outputs(*instance, {{small}}), std::vector{small});
  }
}

TEST_P(BackendConformanceTest, BytesKeepEmptyStringsAndZeros) {
  const auto instance = Instance(OpenNamed("identity_BYTES"), 16);
  const Tensor first = Strings({1, 2}, {"", std::string("a\0b", 3)});
  const Tensor second = Strings({2, 2}, {std::string(300, 'x'), std::string(1, '\0'), "", ""});
  const std::vector<Tensor> outputs = Outputs(*instance, {{first}, {second}});
  ASSERT_EQ(outputs.size(), 1u);
  EXPECT_EQ(outputs[0].shape, (Shape{3, 2}));
  const size_t first_bytes = first.data.size();
  EXPECT_EQ(outputs[0].row_offsets,
            (std::vector<size_t>{0, first_bytes, first_bytes + 309, first_bytes + second.data.size()}));
  // The strings of the batch before were longer; nothing of them may shine through.
  const Tensor shorter = Strings({3, 2}, {"p", "", "", "q", std::string("\0\0", 2), "r"});
  EXPECT_EQ(Outputs(*instance, {{shorter}}), std::vector{shorter});
}

TEST_P(BackendConformanceTest, FixedSizeOutputsHaveNoRowOffsets) {
  const auto instance = Instance(OpenNamed("identity_FP32"), 16);
  EXPECT_TRUE(Outputs(*instance, {{RampFloats({2, 2}, 0)}})[0].row_offsets.empty());
}

TEST_P(BackendConformanceTest, RunsWithoutABatchDimension) {
  const auto matrix = Instance(OpenNamed("no_batch"), 0);
  const auto scalar = Instance(OpenNamed("scalar"), 0);
  for (int start = 0; start < 3; ++start) {
    EXPECT_EQ(Outputs(*matrix, {{RampFloats({3, 2}, start)}}), std::vector{RampFloats({3, 2}, start)});
    EXPECT_EQ(Outputs(*scalar, {{RampFloats({}, start)}}), std::vector{RampFloats({}, start)});
  }
}

TEST_P(BackendConformanceTest, RunsTensorsWithoutElements) {
  const auto floats = Instance(OpenNamed("identity_FP32"), 16);
  const auto strings = Instance(OpenNamed("identity_BYTES"), 16);
  EXPECT_EQ(Outputs(*floats, {{Floats({0, 3}, {})}}), std::vector{Floats({0, 3}, {})});
  EXPECT_EQ(Outputs(*floats, {{Floats({2, 0}, {})}, {Floats({1, 0}, {})}}), std::vector{Floats({3, 0}, {})});
  EXPECT_EQ(Outputs(*floats, {{Floats({0, 1}, {})}, {Floats({1, 1}, {7})}}), std::vector{Floats({1, 1}, {7})});
  EXPECT_EQ(Outputs(*strings, {{Strings({0, 3}, {})}})[0].row_offsets, std::vector<size_t>{0});
  EXPECT_EQ(Outputs(*strings, {{Strings({2, 0}, {})}})[0].row_offsets, (std::vector<size_t>{0, 0, 0}));
}

TEST_P(BackendConformanceTest, TakesALoneItemAtAnyAddress) {
  const auto instance = Instance(OpenNamed("identity_FP32"), 16);
  const Tensor tensor = RampFloats({5, 7}, 3);
  std::vector<std::byte> bytes(tensor.data.size() + 8);
  for (size_t shift = 0; shift < 5; ++shift) {
    std::ranges::copy(tensor.data, bytes.begin() + static_cast<std::ptrdiff_t>(shift));
    TensorView view = tensor.view();
    view.data = std::span(bytes).subspan(shift, tensor.data.size());
    const BatchItem item{.inputs = {&view, 1}, .rows = 5};
    BatchResult result;
    const Status status = instance->Execute({.items = {&item, 1}, .total_rows = 5}, &result);
    ASSERT_TRUE(status.ok()) << status.message();
    EXPECT_EQ(Copy(result.outputs[0]), tensor);
  }
}

TEST_P(BackendConformanceTest, BatchesGrowAndShrink) {
  const auto floats = Instance(OpenNamed("identity_FP32"), 1024);
  const auto strings = Instance(OpenNamed("identity_BYTES"), 1024);
  for (const int rows : {1, 100, 3, 1000, 1, 7}) {
    const Tensor one = RampFloats({1, 2}, -1);
    const Tensor many = RampFloats({rows, 2}, rows);
    EXPECT_EQ(Outputs(*floats, {{one}, {many}}), OutputsOneByOne(*floats, {{one}, {many}}));
    const Tensor word = Strings({1, 1}, {"word"});
    const Tensor words = Strings({rows, 1}, std::vector<std::string>(static_cast<size_t>(rows), "w"));
    EXPECT_EQ(Outputs(*strings, {{word}, {words}}), OutputsOneByOne(*strings, {{word}, {words}}));
  }
}

TEST_P(BackendConformanceTest, ResultsOutliveTheirRequest) {
  const auto instance = Instance(OpenNamed("identity_FP32"), 16);
  const Tensor expected = RampFloats({4, 4}, 9);
  BatchResult result;
  {
    std::vector<Request> requests = {{expected}};
    ASSERT_TRUE(Execute(*instance, requests, &result).ok());
    std::ranges::fill(requests[0][0].data, std::byte{0xff});
  }
  EXPECT_EQ(Copy(result.outputs[0]), expected);
}

TEST_P(BackendConformanceTest, ReusesTheCallersResult) {
  const auto one_output = Instance(OpenNamed("identity_FP32"), 16);
  const auto two_outputs = Instance(OpenNamed("two_outputs"), 16);
  BatchResult result;
  ASSERT_TRUE(Execute(*two_outputs, {{RampFloats({1, 4}, 0), Ids({1, 2}, {1, 2})}}, &result).ok());
  EXPECT_EQ(result.outputs.size(), 2u);
  ASSERT_TRUE(Execute(*one_output, {{RampFloats({1, 4}, 0)}}, &result).ok());
  ASSERT_EQ(result.outputs.size(), 1u);
  EXPECT_EQ(Copy(result.outputs[0]), RampFloats({1, 4}, 0));
}

TEST_P(BackendConformanceTest, InstancesRunOnThreadsOfTheirOwn) {
  BackendModel& model = OpenNamed("two_outputs");
  constexpr int kThreads = 2;
  std::vector<std::unique_ptr<BackendInstance>> instances;
  for (int i = 0; i < kThreads; ++i) instances.push_back(Instance(model, 64));
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 1; round <= 50; ++round) {
        const Tensor ids = Ids({round, 2}, std::vector<int64_t>(static_cast<size_t>(round) * 2, i));
        const Tensor floats = Floats({round, 4}, std::vector<float>(static_cast<size_t>(round) * 4, float(round)));
        const Tensor sums = Floats({round}, std::vector<float>(static_cast<size_t>(round), float(round * 4)));
        EXPECT_EQ(Outputs(*instances[static_cast<size_t>(i)], {{floats, ids}}), (std::vector{ids, sums}));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_P(BackendConformanceTest, AFailureLeavesTheInstanceUsable) {
  BackendModel& model = OpenNamed("poisoned");
  const auto instance = Instance(model, 16);
  const auto neighbour = Instance(model, 16);
  const Tensor good = Ids({2}, {3, 4});
  const Tensor bad = Ids({1}, {666});
  for (int round = 0; round < 3; ++round) {
    BatchResult result;
    const Status status = Execute(*instance, {{good}, {bad}}, &result);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << status.message();
    EXPECT_FALSE(status.message().empty());
    EXPECT_EQ(Outputs(*neighbour, {{good}}), std::vector{good});
    EXPECT_EQ(Outputs(*instance, {{good}}), std::vector{good});
  }
}

TEST_P(BackendConformanceTest, TimesAreTheInjectedClocks) {
  const auto instance = Instance(OpenNamed("identity_FP32"), 16);
  clock_.Advance(5'000);
  BatchResult result;
  ASSERT_TRUE(Execute(*instance, {{RampFloats({1, 1}, 0)}}, &result).ok());
  EXPECT_EQ(result.gather_start_ns, clock_.NowNs());
  EXPECT_EQ(result.execute_start_ns, clock_.NowNs());
  EXPECT_EQ(result.execute_end_ns, clock_.NowNs());
}

INSTANTIATE_TEST_SUITE_P(Backends, BackendConformanceTest, testing::ValuesIn(AllBackends()),
                         [](const auto& backend) { return backend.param.name; });

}  // namespace
}  // namespace gristmill
