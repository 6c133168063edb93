// SPDX-License-Identifier: Apache-2.0
#include "bindings/native_transport.h"

#include <pybind11/stl.h>

#include <cstring>

#include "bindings/bindings.h"
#include "transport/grpc_headers.h"

namespace py = pybind11;

namespace gristmill::python {
namespace {

constexpr std::string_view kModelInfer = "/inference.GRPCInferenceService/ModelInfer";
constexpr std::string_view kModelStreamInfer = "/inference.GRPCInferenceService/ModelStreamInfer";

/// 0 is no limit.
int64_t Nanoseconds(double seconds) {
  constexpr double kLongestS = 1e9;  // the nanoseconds of more would not fit
  return seconds > 0 && seconds < kLongestS ? static_cast<int64_t>(seconds * 1e9) : kNever;
}

py::tuple MetadataToPython(const Metadata& metadata) {
  py::tuple entries(metadata.size());
  for (size_t i = 0; i < metadata.size(); ++i) {
    const auto& [name, value] = metadata[i];
    py::object content = IsBinaryHeader(name) ? py::object(py::bytes(value)) : py::object(Text(value));
    entries[i] = py::make_tuple(Text(name), std::move(content));
  }
  return entries;
}

py::dict AuthToPython(const AuthProperties& properties) {
  py::dict values_by_name;
  for (const auto& [name, value] : properties) {
    const py::str key(name);
    if (!values_by_name.contains(key)) values_by_name[key] = py::list();
    values_by_name[key].cast<py::list>().append(py::bytes(value));
  }
  return values_by_name;
}

py::object Payload(const CallEvent& event, const Clock& clock) {
  switch (event.kind) {
    case CallEvent::Kind::kCall: {
      py::object time_left_s = py::none();
      if (event.deadline_ns != kNever) {
        time_left_s = py::float_(static_cast<double>(event.deadline_ns - clock.NowNs()) / 1e9);
      }
      return py::make_tuple(Text(event.path), MetadataToPython(event.metadata), Text(event.peer), time_left_s,
                            AuthToPython(event.auth));
    }
    case CallEvent::Kind::kMessage:
      return py::bytes(reinterpret_cast<const char*>(event.message.data()), event.message.size());
    default:
      return py::none();
  }
}

}  // namespace

void EventQueue::Push(CallEvent event) {
  bool is_first = false;
  {
    MutexLock lock(mu_);
    is_first = events_.empty();
    events_.push_back(std::move(event));
  }
  if (is_first) ready_.Signal();
}

void EventQueue::Take(std::vector<CallEvent>* events) {
  events->clear();
  ready_.Clear();
  MutexLock lock(mu_);
  events_.swap(*events);
}

void PythonCalls::OnCall(Call* call) {
  const uint64_t number = ++next_call_;
  call->handler_state = reinterpret_cast<void*>(number);
  calls_.emplace(number, call);
  events_.Push({.kind = CallEvent::Kind::kCall,
                .call = number,
                .path = call->path(),
                .metadata = call->metadata(),
                .peer = call->peer(),
                .auth = call->auth(),
                .deadline_ns = call->deadline_ns()});
}

void PythonCalls::OnMessage(Call* call, Buffer message) {
  call->SetReading(false);  // until Python has taken this one
  events_.Push({.kind = CallEvent::Kind::kMessage, .call = NumberOf(call), .message = std::move(message)});
}

void PythonCalls::OnHalfClose(Call* call) { Tell(CallEvent::Kind::kHalfClose, call); }
void PythonCalls::OnSent(Call* call) { Tell(CallEvent::Kind::kSent, call); }
void PythonCalls::OnCancel(Call* call) { Tell(CallEvent::Kind::kCancel, call); }

Call* PythonCalls::Find(uint64_t call) const {
  const auto found = calls_.find(call);
  return found == calls_.end() ? nullptr : found->second;
}

void PythonCalls::Finish(uint64_t call, const Status& status, const Metadata& trailing_metadata) {
  const auto found = calls_.find(call);
  if (found == calls_.end()) return;
  Call* finished = found->second;
  calls_.erase(found);
  finished->Finish(status, trailing_metadata);
}

/// ModelInfer and ModelStreamInfer go to the engine, everything else to Python.
class NativeTransport::Handlers final : public LoopHandlers {
 public:
  Handlers(Engine* engine, EventLoop* loop, EventQueue* events, uint64_t loop_index)
      : infer_(engine, loop), stream_infer_(engine, loop), python_(events, loop_index) {}

  Status Open() {
    if (Status status = infer_.Open(); !status.ok()) return status;
    return stream_infer_.Open();
  }
  InferService* infer() { return &infer_; }
  StreamInferService* stream_infer() { return &stream_infer_; }
  PythonCalls* python() { return &python_; }

  CallHandler* Find(std::string_view path) override {
    if (path == kModelInfer) return &infer_;
    if (path == kModelStreamInfer) return &stream_infer_;
    return &python_;
  }
  void OnTurnEnd() override {
    infer_.Submit();
    stream_infer_.Submit();
  }

 private:
  InferService infer_;
  StreamInferService stream_infer_;
  PythonCalls python_;
};

NativeTransport::NativeTransport(std::shared_ptr<Engine> engine, const ServerOptions& options)
    : engine_(std::move(engine)) {
  ThrowIfError(events_.Open());
  server_ = std::make_unique<TransportServer>(options, &engine_->clock(),
                                              [this](EventLoop* loop) { return MakeHandlers(loop); });
  ThrowIfError(server_->Open());
  ThrowIfError(open_status_);
}

NativeTransport::~NativeTransport() {
  py::gil_scoped_release release;
  server_.reset();
}

std::unique_ptr<LoopHandlers> NativeTransport::MakeHandlers(EventLoop* loop) {
  auto handlers = std::make_unique<Handlers>(engine_.get(), loop, &events_, loops_.size());
  if (Status status = handlers->Open(); !status.ok()) open_status_ = status;
  loops_.push_back({loop, handlers->infer(), handlers->stream_infer(), handlers->python()});
  return handlers;
}

int NativeTransport::Listen(const std::string& address, std::shared_ptr<TlsContext> tls) {
  int port = 0;
  CallWithoutGil([&] { return server_->Listen(address, &port, std::move(tls)); });
  return port;
}

void NativeTransport::Start() { server_->Start(); }

void NativeTransport::Drain() { server_->Drain(); }

void NativeTransport::Stop() {
  py::gil_scoped_release release;
  server_->Stop();
}

size_t NativeTransport::infer_calls() const {
  size_t count = 0;
  for (const Loop& loop : loops_) count += loop.infer->calls() + loop.stream_infer->requests();
  return count;
}

py::list NativeTransport::TakeEvents() {
  events_.Take(&taken_);
  py::list events(taken_.size());
  for (size_t i = 0; i < taken_.size(); ++i) {
    const CallEvent& event = taken_[i];
    events[i] = py::make_tuple(static_cast<int>(event.kind), event.call, Payload(event, engine_->clock()));
  }
  taken_.clear();
  return events;
}

template <typename Work>
void NativeTransport::OnLoopOf(uint64_t call, Work work) {
  const Loop& loop = loops_.at(call >> PythonCalls::kLoopShift);
  loop.events->Post([calls = loop.python, call, work = std::move(work)]() mutable {
    if (Call* found = calls->Find(call)) work(calls, found);
  });
}

void NativeTransport::SetEncoding(uint64_t call, int encoding) {
  OnLoopOf(call, [encoding](PythonCalls*, Call* found) { found->SetEncoding(static_cast<Encoding>(encoding)); });
}

void NativeTransport::SendInitialMetadata(uint64_t call, Metadata metadata) {
  OnLoopOf(call, [metadata = std::move(metadata)](PythonCalls*, Call* found) { found->SendInitialMetadata(metadata); });
}

void NativeTransport::SendMessage(uint64_t call, const py::bytes& message, bool may_compress) {
  const auto size = static_cast<size_t>(PyBytes_GET_SIZE(message.ptr()));
  // std::function copies what it holds, and a buffer has one owner.
  auto buffer = std::make_shared<Buffer>(engine_->buffers().Acquire(size));
  if (size > 0) std::memcpy(buffer->data(), PyBytes_AS_STRING(message.ptr()), size);
  OnLoopOf(call,
           [buffer, may_compress](PythonCalls*, Call* found) { found->SendMessage(std::move(*buffer), may_compress); });
}

void NativeTransport::Finish(uint64_t call, int code, std::string details, Metadata trailing_metadata) {
  Status status(static_cast<StatusCode>(code), std::move(details));
  OnLoopOf(call, [call, status = std::move(status), trailing = std::move(trailing_metadata)](
                     PythonCalls* calls, Call*) { calls->Finish(call, status, trailing); });
}

void NativeTransport::ReadMore(uint64_t call) {
  OnLoopOf(call, [](PythonCalls*, Call* found) { found->SetReading(true); });
}

void RegisterNativeTransport(py::module_& m) {
  py::class_<NativeTransport>(m, "NativeTransport")
      .def(py::init([](std::shared_ptr<Engine> engine, int io_threads, size_t max_message_bytes,
                       size_t max_received_bytes, size_t max_connection_bytes, int response_encoding, bool reuse_port,
                       double keepalive_time_s, double keepalive_timeout_s, double max_connection_idle_s,
                       double max_connection_age_s, double max_connection_age_grace_s) {
             ServerOptions options{
                 .io_threads = io_threads, .reuse_port = reuse_port, .max_received_bytes = max_received_bytes};
             options.transport.max_message_bytes = max_message_bytes;
             options.transport.max_connection_bytes = max_connection_bytes;
             options.transport.response_encoding = static_cast<Encoding>(response_encoding);
             options.transport.keepalive_time_ns = Nanoseconds(keepalive_time_s);
             options.transport.keepalive_timeout_ns = Nanoseconds(keepalive_timeout_s);
             options.transport.max_idle_ns = Nanoseconds(max_connection_idle_s);
             options.transport.max_age_ns = Nanoseconds(max_connection_age_s);
             options.transport.max_age_grace_ns = Nanoseconds(max_connection_age_grace_s);
             return std::make_unique<NativeTransport>(std::move(engine), options);
           }),
           py::arg("engine"), py::kw_only(), py::arg("io_threads"), py::arg("max_message_bytes"),
           py::arg("max_received_bytes") = 0, py::arg("max_connection_bytes") = 0, py::arg("response_encoding") = 0,
           py::arg("reuse_port"), py::arg("keepalive_time_s"), py::arg("keepalive_timeout_s"),
           py::arg("max_connection_idle_s"), py::arg("max_connection_age_s"), py::arg("max_connection_age_grace_s"))
      .def("listen", &NativeTransport::Listen, py::arg("address"), py::arg("tls") = nullptr)
      .def("start", &NativeTransport::Start)
      .def("drain", &NativeTransport::Drain)
      .def("stop", &NativeTransport::Stop)
      .def_property_readonly("connections", &NativeTransport::connections)
      .def_property_readonly("calls", &NativeTransport::calls)
      .def_property_readonly("infer_calls", &NativeTransport::infer_calls)
      .def("fileno", &NativeTransport::fileno)
      .def("take_events", &NativeTransport::TakeEvents)
      .def("set_encoding", &NativeTransport::SetEncoding, py::arg("call"), py::arg("encoding"))
      .def("send_initial_metadata", &NativeTransport::SendInitialMetadata, py::arg("call"), py::arg("metadata"))
      .def("send_message", &NativeTransport::SendMessage, py::arg("call"), py::arg("message"), py::arg("may_compress"))
      .def("finish", &NativeTransport::Finish, py::arg("call"), py::arg("code"), py::arg("details"),
           py::arg("trailing_metadata"))
      .def("read_more", &NativeTransport::ReadMore, py::arg("call"));
}

}  // namespace gristmill::python
