// SPDX-License-Identifier: Apache-2.0
// Stream: one call on its HTTP/2 stream: what has come of it, and what of its answer is still to be sent.
//
// Life: made when the client's headers begin; gone once the stream is closed and the handler has finished the call,
// whichever comes last.
#pragma once

#include <nghttp2/nghttp2.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "transport/call.h"
#include "transport/connection.h"
#include "transport/message_reader.h"
#include "transport/timer_wheel.h"

namespace gristmill {

class Stream final : public Call {
 public:
  Stream(Connection* connection, int32_t id);

  const std::string& path() const override { return path_; }
  const Metadata& metadata() const override { return metadata_; }
  const std::string& peer() const override { return peer_; }
  const AuthProperties& auth() const override;
  int64_t arrival_ns() const override { return arrival_ns_; }
  int64_t deadline_ns() const override { return deadline_ns_; }
  void SetEncoding(Encoding encoding) override;
  void SendInitialMetadata(const Metadata& metadata) override;
  void SendMessage(Buffer message, bool may_compress) override;
  void Finish(const Status& status, const Metadata& trailing_metadata) override;
  void SetReading(bool reading) override;

  // What the connection tells the stream.
  void OnHeader(std::string_view name, std::string_view value);
  void OnHeadersEnd(size_t header_bytes);
  void OnData(std::span<const std::byte> bytes);
  void OnEndOfStream();
  /// Trailers with the end of the stream have been written.
  void OnAnswered();
  /// The stream is gone. May delete the stream.
  void OnClosed();

  // For the data provider.
  ssize_t NextChunk(size_t max_bytes, uint32_t* flags);
  void WriteChunk(const uint8_t* frame_head, size_t size);

 private:
  friend class Connection;
  ~Stream() override;

  void Refuse(std::string_view http_status);
  /// Ends the call for the handler, and for the client with `status`.
  void Abort(const Status& status);
  void Answer(const Status& status, const Metadata& trailing_metadata);
  /// Messages follow.
  void SubmitHead(const Metadata& initial_metadata);
  /// The end of the answer: with the head, if that has not been submitted.
  void SubmitStatus();
  bool compresses() const { return encoding_ != Encoding::kIdentity && accepted_encodings_.Has(encoding_); }
  void Resume();
  /// Drops the messages from `first` on.
  void DropOutgoing(size_t first);
  /// Tells the connection how much memory the message that is coming in has.
  void CountReceiving();
  void CancelHandler();
  static void OnDeadline(Timer* timer);

  // Of the request.
  Connection* connection_;  // null once the stream is closed
  ConnectionSet& set_;
  const int32_t id_;
  size_t place_ = 0;  // in connection_->streams_
  CallHandler* handler_ = nullptr;
  int64_t arrival_ns_;
  int64_t deadline_ns_ = kNever;
  std::string path_;
  std::string peer_;
  std::shared_ptr<const AuthProperties> auth_;
  Metadata metadata_;
  MessageReader reader_;
  int32_t window_bytes_;
  size_t unconsumed_bytes_ = 0;
  size_t receiving_bytes_ = 0;  // of the connection's
  Timer deadline_timer_;

  bool is_post_ = false;
  bool is_grpc_ = false;
  bool has_bad_timeout_ = false;
  bool has_bad_header_ = false;
  bool has_unknown_encoding_ = false;
  bool is_reading_ = true;
  bool half_closed_ = false;  // by the client
  bool begun_ = false;        // OnCall has been called
  bool cancelled_ = false;    // OnCancel has been called
  bool finished_ = false;     // by the handler

  // Of the answer.
  struct Outgoing {
    Buffer message;
    bool is_compressed = false;
    bool is_viewed = false;  // by the connection's write queue
  };
  Encoding encoding_;
  EncodingSet accepted_encodings_;
  bool head_submitted_ = false;
  bool answered_ = false;  // with a status: nothing follows
  bool deferred_ = false;  // nghttp2 waits for Resume
  size_t first_outgoing_ = 0;
  size_t sent_of_first_ = 0;  // prefix included
  std::vector<Outgoing> outgoing_;
  StatusCode status_code_ = StatusCode::kOk;
  std::string status_message_;
  Metadata trailing_metadata_;
};

}  // namespace gristmill
