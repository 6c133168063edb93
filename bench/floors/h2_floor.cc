// SPDX-License-Identifier: Apache-2.0
// What one gRPC unary call costs over nghttp2 and epoll when nothing is done for it: a fixed reply, sent at once.
//
//   h2_floor PORT REPLY       (REPLY: a file with a serialized ModelInferResponse)
#include "floor_server.h"

namespace {

class FixedReply : public floors::Handler {
 public:
  explicit FixedReply(std::string reply) : reply_(std::move(reply)), server_(*this) {}

  void OnRequest(floors::Stream* stream) override {
    stream->reply = reply_;
    server_.Answer(stream);
  }

  [[noreturn]] void Run(uint16_t port) { server_.Run(port); }

 private:
  const std::string reply_;
  floors::FloorServer server_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) floors::Die("expected the arguments PORT REPLY");
  static FixedReply handler(floors::ReadReply(argv[2]));
  handler.Run(static_cast<uint16_t>(std::atoi(argv[1])));
}
