// SPDX-License-Identifier: Apache-2.0
// calls.proto for gRPC C++. Every call is made as a stream both ways, which is the same on the wire; what the kinds of
// calls with one answer would not show is left out.
#include <google/protobuf/util/json_util.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cmath>
#include <future>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "calls.pb.h"

namespace gristmill::test {
namespace {

grpc::ByteBuffer BufferOf(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return {&slice, 1};
}

std::string BytesOf(const grpc::ByteBuffer& buffer) {
  grpc::Slice slice;
  buffer.DumpToSingleSlice(&slice);
  return {reinterpret_cast<const char*>(slice.begin()), slice.size()};
}

class Ongoing : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  Ongoing(const Call& call, grpc::GenericStub* stub) : call_(call) {
    for (const Entry& entry : call.metadata()) context_.AddMetadata(entry.name(), entry.value());
    context_.set_deadline(After(call.timeout_s()));
    if (call.compression() == "gzip") context_.set_compression_algorithm(GRPC_COMPRESS_GZIP);
    if (call.compression() == "deflate") context_.set_compression_algorithm(GRPC_COMPRESS_DEFLATE);
    stub->PrepareBidiStreamingCall(&context_, call.path(), {}, this);
    StartRead(&response_);
    WriteNext();
    StartCall();
  }

  Outcome Wait() {
    std::future<grpc::Status> future = status_.get_future();
    if (call_.cancel_after_s() > 0 && future.wait_until(After(call_.cancel_after_s())) == std::future_status::timeout) {
      context_.TryCancel();
    }
    const grpc::Status status = future.get();
    outcome_.set_code(status.error_code());
    outcome_.set_details(status.error_message());
    if (!status.ok() && (call_.kind() == "unary" || call_.kind() == "client_stream")) outcome_.clear_responses();
    for (const auto& [name, value] : context_.GetServerInitialMetadata()) {
      Add(name, value, outcome_.add_initial_metadata());
    }
    for (const auto& [name, value] : context_.GetServerTrailingMetadata()) {
      Add(name, value, outcome_.add_trailing_metadata());
    }
    return outcome_;
  }

  void OnReadInitialMetadataDone(bool ok) override {
    if (ok && call_.cancel_on() == "metadata") context_.TryCancel();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    outcome_.add_responses(BytesOf(response_));
    if (call_.cancel_on() == "response") context_.TryCancel();
    StartRead(&response_);
  }

  void OnWriteDone(bool ok) override {
    if (ok) WriteNext();
  }

  void OnDone(const grpc::Status& status) override { status_.set_value(status); }

 private:
  static std::chrono::system_clock::time_point After(double seconds) {
    return std::chrono::system_clock::now() + std::chrono::microseconds(std::llround(seconds * 1e6));
  }

  static void Add(grpc::string_ref name, grpc::string_ref value, Entry* entry) {
    entry->set_name(name.data(), name.size());
    entry->set_value(value.data(), value.size());
  }

  void WriteNext() {
    if (written_ == call_.messages_size()) {
      StartWritesDone();
      return;
    }
    request_ = BufferOf(call_.messages(written_++));
    StartWrite(&request_);
  }

  const Call& call_;
  grpc::ClientContext context_;
  grpc::ByteBuffer request_;
  grpc::ByteBuffer response_;
  int written_ = 0;
  Outcome outcome_;
  std::promise<grpc::Status> status_;
};

Outcomes Make(const Run& run) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  grpc::GenericStub stub(grpc::CreateCustomChannel(run.target(), grpc::InsecureChannelCredentials(), arguments));
  Outcomes outcomes;
  std::vector<std::unique_ptr<Ongoing>> ongoing;
  for (const Call& call : run.calls()) {
    ongoing.push_back(std::make_unique<Ongoing>(call, &stub));
    if (!run.at_once()) *outcomes.add_outcomes() = ongoing.back()->Wait();
  }
  if (run.at_once()) {
    for (const auto& one : ongoing) *outcomes.add_outcomes() = one->Wait();
  }
  return outcomes;
}

}  // namespace
}  // namespace gristmill::test

int main() {
  namespace json = google::protobuf::util;
  const std::string input(std::istreambuf_iterator<char>(std::cin), {});
  gristmill::test::Run run;
  if (const auto status = json::JsonStringToMessage(input, &run); !status.ok()) {
    std::cerr << status.ToString() << "\n";
    return 1;
  }
  json::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string output;
  if (const auto status = json::MessageToJsonString(gristmill::test::Make(run), &output, options); !status.ok()) {
    std::cerr << status.ToString() << "\n";
    return 1;
  }
  std::cout << output;
  return 0;
}
