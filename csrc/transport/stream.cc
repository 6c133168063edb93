// SPDX-License-Identifier: Apache-2.0
#include "transport/stream.h"

#include <algorithm>
#include <array>
#include <utility>

#include "transport/compression.h"
#include "transport/grpc_headers.h"
#include "transport/header_list.h"

namespace gristmill {
namespace {

// Parts of a message from here on are written from where they lie.
constexpr size_t kViewFromBytes = 4096;

bool IsReserved(std::string_view name) {
  return name == "content-type" || name == "te" || name == "grpc-timeout" || name == "grpc-encoding" ||
         name == "grpc-accept-encoding" || name == "grpc-message-type";
}

}  // namespace

Stream::Stream(Connection* connection, int32_t id)
    : connection_(connection),
      set_(connection->set_),
      id_(id),
      arrival_ns_(connection->set_.loop_.now_ns()),
      reader_(&connection->set_.buffers_, connection->set_.options_.max_message_bytes),
      window_bytes_(connection->set_.options_.stream_window_bytes),
      encoding_(connection->set_.options_.response_encoding) {
  deadline_timer_.fire = OnDeadline;
  deadline_timer_.owner = this;
}

Stream::~Stream() { set_.loop_.timers().Clear(&deadline_timer_); }

void Stream::OnHeader(std::string_view name, std::string_view value) {
  if (name == ":path") {
    handler_ = set_.handlers_.Find(value);
    if (handler_->wants_metadata()) {
      path_ = value;
      peer_ = connection_->peer_;
      auth_ = connection_->Auth();
    }
  } else if (name == ":method") {
    is_post_ = value == "POST";
  } else if (name == "content-type") {
    constexpr std::string_view kGrpc = "application/grpc";
    is_grpc_ = value.starts_with(kGrpc) &&
               (value.size() == kGrpc.size() || value[kGrpc.size()] == '+' || value[kGrpc.size()] == ';');
  } else if (name == "grpc-timeout") {
    const std::optional<int64_t> timeout_ns = ParseGrpcTimeout(value);
    has_bad_timeout_ = !timeout_ns;
    if (timeout_ns && *timeout_ns < kNever - arrival_ns_) deadline_ns_ = arrival_ns_ + *timeout_ns;
  } else if (name == "grpc-encoding") {
    const std::optional<Encoding> encoding = ParseEncoding(value);
    has_unknown_encoding_ = !encoding;
    reader_.set_encoding(encoding.value_or(Encoding::kIdentity));
  } else if (name == "grpc-accept-encoding") {
    // Whoever does not compress need not know.
    if (encoding_ != Encoding::kIdentity || (handler_ != nullptr && handler_->wants_metadata())) {
      accepted_encodings_ = ParseAcceptEncoding(value);
    }
  }
  if (handler_ == nullptr || !handler_->wants_metadata() || name.starts_with(':') || IsReserved(name)) return;
  if (!IsBinaryHeader(name)) {
    metadata_.emplace_back(name, value);
    return;
  }
  while (true) {  // several values of one name may come joined by commas
    const size_t comma = value.find(',');
    std::optional<std::string> bytes = Base64Decode(value.substr(0, comma));
    if (!bytes) {
      has_bad_header_ = true;
      return;
    }
    metadata_.emplace_back(name, std::move(*bytes));
    if (comma == std::string_view::npos) return;
    value.remove_prefix(comma + 1);
  }
}

void Stream::OnHeadersEnd(size_t header_bytes) {
  if (header_bytes > set_.options_.max_header_bytes) {  // first: what came after the limit has not been looked at
    return Answer(ResourceExhausted("received initial metadata size exceeds limit (" +
                                    std::to_string(set_.options_.max_header_bytes) + ")"),
                  {});
  }
  if (!is_post_) return Refuse("405");
  if (!is_grpc_) return Refuse("415");
  if (has_bad_timeout_) return Answer(Internal("the grpc-timeout header is no timeout"), {});
  if (has_bad_header_) return Answer(Internal("a -bin header is no base64"), {});
  if (has_unknown_encoding_) {
    return Answer(Unimplemented("expected a grpc-encoding among " + std::string(kAcceptedEncodings)), {});
  }
  begun_ = true;
  set_.calls_.fetch_add(1, std::memory_order_relaxed);
  if (deadline_ns_ != kNever) set_.loop_.timers().Set(&deadline_timer_, deadline_ns_);
  handler_->OnCall(this);
}

void Stream::OnData(std::span<const std::byte> bytes) {
  nghttp2_session_consume_connection(connection_->session_, bytes.size());
  if (is_reading_) {
    nghttp2_session_consume_stream(connection_->session_, id_, bytes.size());
  } else {
    unconsumed_bytes_ += bytes.size();
  }
  // A handler may answer at once, and then takes no more.
  while (!bytes.empty() && begun_ && !answered_ && !cancelled_) {
    bool message_is_whole = false;
    if (Status status = reader_.Read(&bytes, &message_is_whole); !status.ok()) return Abort(status);
    if (message_is_whole) handler_->OnMessage(this, reader_.TakeMessage());
  }
  if (reader_.held_bytes() == receiving_bytes_) return;
  CountReceiving();
  const size_t limit = set_.options_.max_connection_bytes;
  if (limit > 0 && connection_->receiving_bytes_ > limit && begun_ && !answered_ && !cancelled_) {
    return Abort(ResourceExhausted("unfinished messages of this connection hold " +
                                   std::to_string(connection_->receiving_bytes_) + " bytes, expected at most " +
                                   std::to_string(limit) + "; send fewer at a time"));
  }
  if (const size_t missing = reader_.missing_bytes(); missing > static_cast<size_t>(window_bytes_)) {
    // So that a large message does not wait for a round trip after every window.
    window_bytes_ = static_cast<int32_t>(std::min<size_t>(missing, kMaxWindowBytes));
    connection_->GrowWindows(id_, window_bytes_);
  }
}

void Stream::CountReceiving() {
  connection_->receiving_bytes_ +=
      reader_.held_bytes() - receiving_bytes_;  // modulo the range: right if it shrinks too
  receiving_bytes_ = reader_.held_bytes();
}

void Stream::OnEndOfStream() {
  half_closed_ = true;
  if (!begun_ || answered_ || cancelled_) return;
  if (reader_.within_message()) return Abort(Internal("the stream ended within a message"));
  handler_->OnHalfClose(this);
}

void Stream::SetReading(bool reading) {
  is_reading_ = reading;
  if (!reading || unconsumed_bytes_ == 0 || connection_ == nullptr) return;
  nghttp2_session_consume_stream(connection_->session_, id_, std::exchange(unconsumed_bytes_, 0));
  connection_->MarkDirty();
}

const AuthProperties& Stream::auth() const {
  static const AuthProperties kNone;
  return auth_ != nullptr ? *auth_ : kNone;
}

void Stream::SetEncoding(Encoding encoding) {
  if (!head_submitted_) encoding_ = encoding;
}

void Stream::SendInitialMetadata(const Metadata& metadata) {
  if (connection_ == nullptr || answered_ || head_submitted_) return;
  SubmitHead(metadata);
}

void Stream::SendMessage(Buffer message, bool may_compress) {
  if (connection_ == nullptr || answered_) return;
  if (const size_t limit = set_.options_.max_message_bytes; limit > 0 && message.size() > limit) {
    // The handler hears of it too, since no OnSent will come.
    return Abort(ResourceExhausted("sent message larger than max (" + std::to_string(message.size()) + " vs. " +
                                   std::to_string(limit) + ")"));
  }
  if (const size_t limit = set_.options_.max_connection_bytes;
      limit > 0 && connection_->unsent_bytes_ > 0 && connection_->unsent_bytes_ + message.size() > limit) {
    return Abort(ResourceExhausted("answers of " + std::to_string(connection_->unsent_bytes_) +
                                   " bytes wait to be read on this connection, expected at most " +
                                   std::to_string(limit) + "; read them faster or ask for fewer at a time"));
  }
  bool is_compressed = false;
  if (may_compress && compresses()) {
    Buffer smaller = Compress(encoding_, message.view(), &set_.buffers_);
    is_compressed = !smaller.is_null();
    if (is_compressed) message = std::move(smaller);
  }
  connection_->unsent_bytes_ += message.size();
  outgoing_.push_back({std::move(message), is_compressed});
  if (!head_submitted_) {
    SubmitHead({});
  } else {
    Resume();
  }
}

void Stream::Finish(const Status& status, const Metadata& trailing_metadata) {
  finished_ = true;
  set_.calls_.fetch_sub(1, std::memory_order_relaxed);
  if (connection_ == nullptr) {
    delete this;
    return;
  }
  if (!answered_) Answer(status, trailing_metadata);
}

void Stream::Answer(const Status& status, const Metadata& trailing_metadata) {
  answered_ = true;
  set_.loop_.timers().Clear(&deadline_timer_);
  status_code_ = status.code();
  if (!status.message().empty()) status_message_ = PercentEncode(status.message());
  trailing_metadata_ = trailing_metadata;
  if (head_submitted_) {
    Resume();
  } else {
    SubmitStatus();
    head_submitted_ = true;
    connection_->MarkDirty();
  }
}

void Stream::Abort(const Status& status) {
  DropOutgoing(first_outgoing_ + (sent_of_first_ > 0 ? 1 : 0));
  Answer(status, {});
  CancelHandler();
}

void Stream::DropOutgoing(size_t first) {
  for (size_t i = first; i < outgoing_.size(); ++i) connection_->unsent_bytes_ -= outgoing_[i].message.size();
  outgoing_.resize(std::min(first, outgoing_.size()));
}

void Stream::CancelHandler() {
  if (!begun_ || finished_ || std::exchange(cancelled_, true)) return;
  handler_->OnCancel(this);
}

void Stream::OnDeadline(Timer* timer) {
  static_cast<Stream*>(timer->owner)->Abort(DeadlineExceeded("Deadline Exceeded"));
}

void Stream::Refuse(std::string_view http_status) {
  answered_ = true;
  head_submitted_ = true;
  const nghttp2_nv header = CopiedHeader(":status", http_status);
  nghttp2_submit_response(connection_->session_, id_, &header, 1, nullptr);
  connection_->MarkDirty();
}

void Stream::SubmitHead(const Metadata& initial_metadata) {
  head_submitted_ = true;
  connection_->MarkDirty();
  nghttp2_data_provider provider{};
  provider.source.ptr = this;
  provider.read_callback = Connection::OnWantsData;
  if (initial_metadata.empty() && !compresses()) {
    nghttp2_submit_response(connection_->session_, id_, Head().data(), Head().size(), &provider);
    return;
  }
  HeaderList headers;
  headers.AddHead();
  if (compresses()) headers.Add(FixedHeader("grpc-encoding", EncodingName(encoding_)));
  headers.Add(initial_metadata);
  nghttp2_submit_response(connection_->session_, id_, headers.data(), headers.size(), &provider);
}

void Stream::SubmitStatus() {
  static const nghttp2_nv kOk = FixedHeader("grpc-status", "0");
  const bool is_plain_ok = status_code_ == StatusCode::kOk && status_message_.empty() && trailing_metadata_.empty();
  if (head_submitted_ && is_plain_ok) {
    nghttp2_submit_trailer(connection_->session_, id_, &kOk, 1);
    return;
  }
  HeaderList headers;
  if (!head_submitted_) headers.AddHead();
  headers.Add(FixedHeader("grpc-status", CodeText(status_code_)));
  if (!status_message_.empty()) headers.Add(CopiedHeader("grpc-message", status_message_));
  headers.Add(trailing_metadata_);
  if (head_submitted_) {
    nghttp2_submit_trailer(connection_->session_, id_, headers.data(), headers.size());
  } else {
    nghttp2_submit_response(connection_->session_, id_, headers.data(), headers.size(), nullptr);
  }
}

void Stream::Resume() {
  if (std::exchange(deferred_, false)) nghttp2_session_resume_data(connection_->session_, id_);
  connection_->MarkDirty();
}

ssize_t Stream::NextChunk(size_t max_bytes, uint32_t* flags) {
  size_t chunk = 0;
  bool is_last = true;
  if (first_outgoing_ < outgoing_.size()) {
    const size_t left = kMessagePrefixBytes + outgoing_[first_outgoing_].message.size() - sent_of_first_;
    chunk = std::min(left, max_bytes);
    is_last = chunk == left && first_outgoing_ + 1 == outgoing_.size();
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  } else if (!answered_) {
    deferred_ = true;
    return NGHTTP2_ERR_DEFERRED;
  }
  if (is_last && answered_) {
    *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    SubmitStatus();
  }
  return static_cast<ssize_t>(chunk);
}

void Stream::WriteChunk(const uint8_t* frame_head, size_t size) {
  constexpr size_t kFrameHeadBytes = 9;
  WriteQueue& out = connection_->out_;
  out.Append({reinterpret_cast<const std::byte*>(frame_head), kFrameHeadBytes});
  if (size == 0) return;
  Outgoing& first = outgoing_[first_outgoing_];
  const std::span<const std::byte> message = first.message.view();
  if (sent_of_first_ < kMessagePrefixBytes) {
    const auto length = static_cast<uint32_t>(message.size());
    const std::array<std::byte, kMessagePrefixBytes> prefix = {
        std::byte{first.is_compressed}, static_cast<std::byte>(length >> 24), static_cast<std::byte>(length >> 16),
        static_cast<std::byte>(length >> 8), static_cast<std::byte>(length)};
    const size_t count = std::min(size, kMessagePrefixBytes - sent_of_first_);
    out.Append(std::span(prefix).subspan(sent_of_first_, count));
    sent_of_first_ += count;
    size -= count;
  }
  if (size > 0) {
    const std::span<const std::byte> payload = message.subspan(sent_of_first_ - kMessagePrefixBytes, size);
    if (size >= kViewFromBytes) {
      out.AppendView(payload);
      first.is_viewed = true;
    } else {
      out.Append(payload);
    }
    sent_of_first_ += size;
  }
  if (sent_of_first_ < kMessagePrefixBytes + message.size()) return;
  connection_->unsent_bytes_ -= message.size();
  if (first.is_viewed) out.Keep(std::move(first.message));
  sent_of_first_ = 0;
  if (++first_outgoing_ < outgoing_.size()) return;
  outgoing_.clear();
  first_outgoing_ = 0;
  if (begun_ && !finished_ && !cancelled_) handler_->OnSent(this);
}

void Stream::OnAnswered() {
  // gRPC's way to say that the rest of the request is not wanted.
  if (!half_closed_) nghttp2_submit_rst_stream(connection_->session_, NGHTTP2_FLAG_NONE, id_, NGHTTP2_NO_ERROR);
}

void Stream::OnClosed() {
  if (first_outgoing_ < outgoing_.size() && outgoing_[first_outgoing_].is_viewed) {
    connection_->unsent_bytes_ -= outgoing_[first_outgoing_].message.size();
    connection_->out_.Keep(std::move(outgoing_[first_outgoing_++].message));
  }
  DropOutgoing(first_outgoing_);
  connection_->receiving_bytes_ -= receiving_bytes_;
  set_.loop_.timers().Clear(&deadline_timer_);
  connection_ = nullptr;
  if (!begun_ || finished_) {
    delete this;
  } else {
    CancelHandler();  // which may finish the call, and so delete this
  }
}

}  // namespace gristmill
