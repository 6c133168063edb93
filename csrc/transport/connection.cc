// SPDX-License-Identifier: Apache-2.0
#include "transport/connection.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "transport/stream.h"

namespace gristmill {
namespace {

constexpr size_t kReadBytes = 256 << 10;
// So much is taken from nghttp2 before the socket has to take it.
constexpr size_t kMaxUnwrittenBytes = 1 << 20;
constexpr uint32_t kMaxFrameBytes = 1 << 20;
// What a header counts beyond its text (RFC 9113, 6.5.2).
constexpr size_t kHeaderOverheadBytes = 32;
constexpr uint64_t kResetBurst = 10'000;
constexpr uint64_t kResetsPerSecond = 1'000;
constexpr size_t kMaxContinuations = 8;
// A block of headers so many times over the limit is an attack: a few bytes of HPACK can stand for thousands.
constexpr size_t kHeaderBombFactor = 16;
// After the first GOAWAY, which names no last stream, calls that are under way to the server may still arrive.
constexpr int64_t kDrainNoticeNs = 200'000'000;

ssize_t MaxDataFrame(nghttp2_session*, uint8_t, int32_t, int32_t connection_window, int32_t stream_window,
                     uint32_t peer_max_frame_bytes, void*) {
  return std::min(
      {connection_window, stream_window, static_cast<int32_t>(std::min(peer_max_frame_bytes, kMaxFrameBytes))});
}

}  // namespace

ConnectionSet::ConnectionSet(EventLoop* loop, BufferPool* buffers, LoopHandlers* handlers,
                             const TransportOptions& options)
    : loop_(*loop), buffers_(*buffers), handlers_(*handlers), options_(options), read_buffer_(kReadBytes) {
  nghttp2_session_callbacks_new(&callbacks_);
  nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks_, Connection::OnBeginHeaders);
  nghttp2_session_callbacks_set_on_header_callback(callbacks_, Connection::OnHeader);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks_, Connection::OnFrame);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks_, Connection::OnData);
  nghttp2_session_callbacks_set_on_frame_send_callback(callbacks_, Connection::OnFrameSent);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks_, Connection::OnStreamClose);
  nghttp2_session_callbacks_set_send_data_callback(callbacks_, Connection::OnSendData);
  nghttp2_session_callbacks_set_data_source_read_length_callback(callbacks_, MaxDataFrame);
  nghttp2_option_new(&session_options_);
  nghttp2_option_set_no_auto_window_update(session_options_, 1);
  nghttp2_option_set_no_closed_streams(session_options_, 1);
  // Clients on gRPC core send metadata with blanks at either end, for which nghttp2 would reset the call.
  nghttp2_option_set_no_rfc9113_leading_and_trailing_ws_validation(session_options_, 1);
  // Clients that reset calls as fast as they open them, and headers in ever more pieces, end their connection.
  nghttp2_option_set_stream_reset_rate_limit(session_options_, kResetBurst, kResetsPerSecond);
  nghttp2_option_set_max_continuations(session_options_, kMaxContinuations);
  loop_.AtTurnEnd([this] { Flush(); });
}

ConnectionSet::~ConnectionSet() {
  CloseAll();
  nghttp2_option_del(session_options_);
  nghttp2_session_callbacks_del(callbacks_);
}

void ConnectionSet::Add(std::unique_ptr<Socket> socket, std::string peer) {
  auto* connection = new Connection(this, std::move(socket), std::move(peer));
  connection->place_ = connections_.size();
  connections_.push_back(connection);
  connection_count_.store(connections_.size(), std::memory_order_relaxed);
  if (!connection->Open()) return connection->Close();
  if (draining_) connection->Drain();
}

void ConnectionSet::Drain() {
  draining_ = true;
  for (Connection* connection : connections_) connection->Drain();
}

void ConnectionSet::CloseAll() {
  while (!connections_.empty()) connections_.back()->Close();
}

void ConnectionSet::Flush() {
  handlers_.OnTurnEnd();
  for (size_t i = 0; i < dirty_.size(); ++i) {  // writing may make others dirty
    dirty_[i]->is_dirty_ = false;
    dirty_[i]->Write();
  }
  dirty_.clear();
}

void ConnectionSet::Remove(Connection* connection) {
  connections_.back()->place_ = connection->place_;
  connections_[connection->place_] = connections_.back();
  connections_.pop_back();
  connection_count_.store(connections_.size(), std::memory_order_relaxed);
  loop_.DestroyLater(std::unique_ptr<Watcher>(connection));
}

Connection::Connection(ConnectionSet* set, std::unique_ptr<Socket> socket, std::string peer)
    : set_(*set),
      socket_(std::move(socket)),
      peer_(std::move(peer)),
      window_bytes_(set->options_.connection_window_bytes),
      last_read_ns_(set->loop_.now_ns()) {
  for (Timer* timer : Timers()) timer->owner = this;
  keepalive_timer_.fire = [](Timer* timer) { static_cast<Connection*>(timer->owner)->OnKeepalive(); };
  idle_timer_.fire = [](Timer* timer) { static_cast<Connection*>(timer->owner)->OnIdle(); };
  age_timer_.fire = [](Timer* timer) { static_cast<Connection*>(timer->owner)->OnAge(); };
  handshake_timer_.fire = [](Timer* timer) { static_cast<Connection*>(timer->owner)->Close(); };
  drain_timer_.fire = [](Timer* timer) {
    auto* connection = static_cast<Connection*>(timer->owner);
    nghttp2_submit_goaway(connection->session_, NGHTTP2_FLAG_NONE,
                          nghttp2_session_get_last_proc_stream_id(connection->session_), NGHTTP2_NO_ERROR, nullptr, 0);
    connection->MarkDirty();
  };
}

Connection::~Connection() { nghttp2_session_del(session_); }

bool Connection::Open() {
  if (nghttp2_session_server_new3(&session_, set_.callbacks_, this, set_.session_options_,
                                  set_.session_memory_.functions()) != 0) {
    return false;
  }
  const TransportOptions& options = set_.options_;
  const std::array<nghttp2_settings_entry, 4> settings = {{
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, options.max_concurrent_streams},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, static_cast<uint32_t>(options.stream_window_bytes)},
      {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, kMaxFrameBytes},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, options.max_header_bytes},
  }};
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings.data(), settings.size());
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, window_bytes_);
  if (!set_.loop_.Watch(socket_->fd(), EPOLLIN, this).ok()) return false;
  SetTimer(&handshake_timer_, last_read_ns_, options.handshake_timeout_ns);
  SetTimer(&keepalive_timer_, last_read_ns_, options.keepalive_time_ns);
  SetTimer(&idle_timer_, last_read_ns_, options.max_idle_ns);
  SetTimer(&age_timer_, last_read_ns_, options.max_age_ns);
  MarkDirty();
  return true;
}

void Connection::SetTimer(Timer* timer, int64_t from_ns, int64_t delay_ns) {
  set_.loop_.timers().Set(timer, delay_ns < kNever - from_ns ? from_ns + delay_ns : kNever);
}

void Connection::OnKeepalive() {
  const TransportOptions& options = set_.options_;
  if (set_.loop_.now_ns() - last_read_ns_ < options.keepalive_time_ns) {
    awaits_pong_ = false;
    return SetTimer(&keepalive_timer_, last_read_ns_, options.keepalive_time_ns);
  }
  if (awaits_pong_) return Close();
  awaits_pong_ = true;
  nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, nullptr);
  SetTimer(&keepalive_timer_, set_.loop_.now_ns(), options.keepalive_timeout_ns);
  MarkDirty();
}

void Connection::OnIdle() {
  if (streams_.empty()) Drain();  // else the end of the last call sets the timer again
}

void Connection::OnAge() {
  if (std::exchange(is_over_age_, true)) return Close();
  Drain();
  SetTimer(&age_timer_, set_.loop_.now_ns(), set_.options_.max_age_grace_ns);
}

void Connection::OnPing() {
  constexpr int kMaxStrikes = 2;
  const int64_t now_ns = set_.loop_.now_ns();
  if (now_ns - std::exchange(last_ping_ns_, now_ns) >= set_.options_.min_ping_interval_ns) return;
  if (++ping_strikes_ <= kMaxStrikes) return;
  static constexpr std::string_view kWhy = "too_many_pings";  // which gRPC's clients know
  nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session_),
                        NGHTTP2_ENHANCE_YOUR_CALM, reinterpret_cast<const uint8_t*>(kWhy.data()), kWhy.size());
  nghttp2_session_terminate_session(session_, NGHTTP2_ENHANCE_YOUR_CALM);
}

void Connection::Drain() {
  if (std::exchange(is_draining_, true)) return;
  nghttp2_submit_shutdown_notice(session_);
  set_.loop_.timers().Set(&drain_timer_, set_.loop_.now_ns() + kDrainNoticeNs);
  MarkDirty();
}

void Connection::OnEvents(uint32_t epoll_events) {
  if ((epoll_events & EPOLLOUT) != 0) MarkDirty();
  if ((epoll_events & ~static_cast<uint32_t>(EPOLLOUT)) == 0) return;
  std::span<const std::byte> bytes;
  const IoOutcome outcome = socket_->Read(set_.read_buffer_, &bytes);
  if (outcome == IoOutcome::kBlocked) return;
  if (outcome == IoOutcome::kClosed) return Close();
  last_read_ns_ = set_.loop_.now_ns();
  const ssize_t taken =
      nghttp2_session_mem_recv(session_, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  if (taken < 0) {
    const bool is_flood = IsHeaderBomb() || taken == NGHTTP2_ERR_FLOODED || taken == NGHTTP2_ERR_TOO_MANY_SETTINGS ||
                          taken == NGHTTP2_ERR_TOO_MANY_CONTINUATIONS;
    nghttp2_session_terminate_session(session_, is_flood ? NGHTTP2_ENHANCE_YOUR_CALM : NGHTTP2_PROTOCOL_ERROR);
  }
  MarkDirty();  // nghttp2 may have answers of its own
}

void Connection::GrowWindows(int32_t stream_id, int32_t window_bytes) {
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, stream_id, window_bytes);
  if (window_bytes <= window_bytes_) return;
  window_bytes_ = window_bytes;
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, window_bytes);
}

const std::shared_ptr<const AuthProperties>& Connection::Auth() {
  if (auth_ == nullptr) auth_ = std::make_shared<AuthProperties>(socket_->auth());
  return auth_;
}

bool Connection::IsHeaderBomb() const {
  return header_block_bytes_ > set_.options_.max_header_bytes * kHeaderBombFactor;
}

void Connection::MarkDirty() {
  if (is_closed_ || std::exchange(is_dirty_, true)) return;
  set_.dirty_.push_back(this);
}

void Connection::Write() {
  if (is_closed_) return;
  IoOutcome outcome = IoOutcome::kDone;
  while (true) {
    bool is_drained = !socket_->is_established();
    while (!is_drained && out_.size_bytes() < kMaxUnwrittenBytes) {
      const uint8_t* data = nullptr;
      const ssize_t size = nghttp2_session_mem_send(session_, &data);
      if (size < 0) return Close();
      is_drained = size == 0;
      out_.Append({reinterpret_cast<const std::byte*>(data), static_cast<size_t>(size)});
    }
    outcome = socket_->Write(&out_);
    if (outcome == IoOutcome::kClosed) return Close();
    if (outcome == IoOutcome::kBlocked || is_drained) break;
  }
  const bool waits = outcome == IoOutcome::kBlocked;
  if (waits != waits_to_write_) {
    waits_to_write_ = waits;
    set_.loop_.Rewatch(socket_->fd(), waits ? EPOLLIN | EPOLLOUT : EPOLLIN, this);
  }
  if (!waits && nghttp2_session_want_read(session_) == 0 && nghttp2_session_want_write(session_) == 0) Close();
}

void Connection::Close() {
  if (std::exchange(is_closed_, true)) return;
  for (Timer* timer : Timers()) set_.loop_.timers().Clear(timer);
  set_.loop_.Unwatch(socket_->fd(), this);
  socket_.reset();
  while (!streams_.empty()) {
    Stream* stream = streams_.back();
    streams_.pop_back();
    if (session_ != nullptr) nghttp2_session_set_stream_user_data(session_, stream->id_, nullptr);
    stream->OnClosed();
  }
  set_.Remove(this);
}

Stream* Connection::StreamOf(int32_t id) const {
  return static_cast<Stream*>(nghttp2_session_get_stream_user_data(session_, id));
}

int Connection::OnBeginHeaders(nghttp2_session* session, const nghttp2_frame* frame, void* user_data) {
  auto* connection = static_cast<Connection*>(user_data);
  connection->header_block_bytes_ = 0;
  if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
  auto* stream = new Stream(connection, frame->hd.stream_id);
  stream->place_ = connection->streams_.size();
  connection->streams_.push_back(stream);
  nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, stream);
  return 0;
}

int Connection::OnHeader(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                         const uint8_t* value, size_t value_size, uint8_t, void* user_data) {
  auto* connection = static_cast<Connection*>(user_data);
  connection->header_block_bytes_ += name_size + value_size + kHeaderOverheadBytes;
  if (connection->header_block_bytes_ > connection->set_.options_.max_header_bytes) {
    return connection->IsHeaderBomb() ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
  }
  if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
  if (Stream* stream = connection->StreamOf(frame->hd.stream_id)) {
    stream->OnHeader({reinterpret_cast<const char*>(name), name_size},
                     {reinterpret_cast<const char*>(value), value_size});
  }
  return 0;
}

int Connection::OnFrame(nghttp2_session*, const nghttp2_frame* frame, void* user_data) {
  auto* connection = static_cast<Connection*>(user_data);
  if (frame->hd.type == NGHTTP2_PING && (frame->hd.flags & NGHTTP2_FLAG_ACK) == 0) connection->OnPing();
  if (frame->hd.type == NGHTTP2_SETTINGS) connection->set_.loop_.timers().Clear(&connection->handshake_timer_);
  if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
  Stream* stream = connection->StreamOf(frame->hd.stream_id);
  if (stream == nullptr) return 0;
  if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
    stream->OnHeadersEnd(connection->header_block_bytes_);
  }
  if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) stream->OnEndOfStream();
  return 0;
}

int Connection::OnData(nghttp2_session* session, uint8_t, int32_t id, const uint8_t* data, size_t size,
                       void* user_data) {
  Stream* stream = static_cast<Connection*>(user_data)->StreamOf(id);
  if (stream != nullptr) {
    stream->OnData({reinterpret_cast<const std::byte*>(data), size});
  } else {
    nghttp2_session_consume_connection(session, size);
  }
  return 0;
}

int Connection::OnFrameSent(nghttp2_session*, const nghttp2_frame* frame, void* user_data) {
  if (frame->hd.type != NGHTTP2_HEADERS) return 0;
  static_cast<Connection*>(user_data)->ping_strikes_ = 0;
  if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) return 0;
  if (Stream* stream = static_cast<Connection*>(user_data)->StreamOf(frame->hd.stream_id)) stream->OnAnswered();
  return 0;
}

int Connection::OnStreamClose(nghttp2_session* session, int32_t id, uint32_t, void* user_data) {
  auto* connection = static_cast<Connection*>(user_data);
  Stream* stream = connection->StreamOf(id);
  if (stream == nullptr) return 0;
  nghttp2_session_set_stream_user_data(session, id, nullptr);
  Stream* last = connection->streams_.back();
  last->place_ = stream->place_;
  connection->streams_[stream->place_] = last;
  connection->streams_.pop_back();
  if (connection->streams_.empty()) {
    connection->SetTimer(&connection->idle_timer_, connection->set_.loop_.now_ns(),
                         connection->set_.options_.max_idle_ns);
  }
  stream->OnClosed();
  return 0;
}

ssize_t Connection::OnWantsData(nghttp2_session*, int32_t, uint8_t*, size_t size, uint32_t* flags,
                                nghttp2_data_source* source, void*) {
  return static_cast<Stream*>(source->ptr)->NextChunk(size, flags);
}

int Connection::OnSendData(nghttp2_session*, nghttp2_frame*, const uint8_t* head, size_t size,
                           nghttp2_data_source* source, void*) {
  auto* stream = static_cast<Stream*>(source->ptr);
  stream->connection_->ping_strikes_ = 0;
  stream->WriteChunk(head, size);
  return 0;
}

}  // namespace gristmill
