// SPDX-License-Identifier: Apache-2.0
// What one unary call costs in gRPC C++ (the callback API) when nothing is done for it: fixed bytes in answer to any
// bytes, neither of which is parsed.
//
//   grpc_cpp_echo PORT REPLY       (REPLY: a file with a serialized ModelInferResponse)
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/server_callback_handlers.h>
#include <grpcpp/impl/service_type.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <cstdio>
#include <memory>
#include <string>

#include "floor.h"

namespace {

// What grpc_cpp_plugin generates for a raw method of the callback API, without a message type.
class FixedReply final : public grpc::Service {
 public:
  explicit FixedReply(const std::string& reply) {
    const grpc::Slice slice(reply);
    reply_ = grpc::ByteBuffer(&slice, 1);
    AddMethod(new grpc::internal::RpcServiceMethod("/inference.GRPCInferenceService/ModelInfer",
                                                   grpc::internal::RpcMethod::NORMAL_RPC, nullptr));
    MarkMethodRawCallback(
        0, new grpc::internal::CallbackUnaryHandler<grpc::ByteBuffer, grpc::ByteBuffer>(
               [this](grpc::CallbackServerContext* context, const grpc::ByteBuffer*, grpc::ByteBuffer* reply) {
                 *reply = reply_;  // shares the bytes
                 grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
                 reactor->Finish(grpc::Status::OK);
                 return reactor;
               }));
  }

 private:
  grpc::ByteBuffer reply_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) floors::Die("expected the arguments PORT REPLY");
  FixedReply service(floors::ReadFile(argv[2]));
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(std::string("127.0.0.1:") + argv[1], grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) floors::Die("cannot listen on the port");
  std::printf("listening on 127.0.0.1:%d\n", port);
  std::fflush(stdout);
  server->Wait();
}
