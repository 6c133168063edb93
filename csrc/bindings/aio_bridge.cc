// SPDX-License-Identifier: Apache-2.0
#include "bindings/aio_bridge.h"

#include <poll.h>
#include <pybind11/stl.h>

#include <utility>

#include "bindings/bindings.h"

namespace py = pybind11;

namespace gristmill::python {
namespace {

// Below this size, letting go of the GIL costs more than decoding does.
constexpr size_t kReleaseGilBytes = 64 << 10;

ReceivedBytes View(const py::bytes& bytes) {
  const auto* data = reinterpret_cast<const std::byte*>(PyBytes_AS_STRING(bytes.ptr()));
  const auto size = static_cast<size_t>(PyBytes_GET_SIZE(bytes.ptr()));
  PyObject* owner = bytes.ptr();
  Py_INCREF(owner);
  return ReceivedBytes({data, size}, owner, [](void* object) { Py_DECREF(static_cast<PyObject*>(object)); });
}

py::bytes ToBytes(const Buffer& buffer) {
  const std::span<const std::byte> encoded = buffer.view();
  return {reinterpret_cast<const char*>(encoded.data()), encoded.size()};
}

py::tuple ToTuple(py::object tag, const Completion& completion) {
  const int code = static_cast<int>(completion.status.code());
  if (!completion.status.ok()) return py::make_tuple(std::move(tag), code, Text(completion.status.message()));
  const Buffer& answer = completion.request->encoded_response;
  if (answer.is_null()) return py::make_tuple(std::move(tag), code, py::none());
  return py::make_tuple(std::move(tag), code, ToBytes(answer));
}

}  // namespace

AioBridge::AioBridge(std::shared_ptr<Engine> engine) : engine_(std::move(engine)), completions_(&engine_->buffers()) {
  ThrowIfError(completions_.Open());
}

AioBridge::~AioBridge() {
  Flush();
  while (in_flight() > 0) {
    {
      py::gil_scoped_release release;
      pollfd readable{.fd = completions_.fd(), .events = POLLIN, .revents = 0};
      poll(&readable, 1, -1);
    }
    Drain();
  }
}

uint64_t AioBridge::Submit(const py::bytes& serialized, py::object tag, std::optional<double> timeout_s, bool in_stream,
                           bool errors_end_stream) {
  std::unique_ptr<InferRequest> request = free_requests_.Take();
  request->received = View(serialized);
  request->sink = &completions_;
  if (in_stream) request->envelope = errors_end_stream ? Envelope::kStreamAnswers : Envelope::kStream;
  request->arrival_ns = engine_->clock().NowNs();
  constexpr double kLongestTimeoutS = 1e9;  // the nanoseconds of more would not fit
  if (timeout_s && *timeout_s < kLongestTimeoutS) {
    request->deadline_ns = request->arrival_ns + static_cast<int64_t>(*timeout_s * 1e9);
  }
  const uint64_t ticket = NewCall(request.get(), std::move(tag));
  request->ticket = ticket;
  submitted_bytes_ += request->received.bytes().size();
  submitted_.push_back(std::move(request));
  return ticket;
}

void AioBridge::Flush() {
  if (submitted_bytes_ < kReleaseGilBytes) {
    engine_->Infer(submitted_);
  } else {
    py::gil_scoped_release release;
    engine_->Infer(submitted_);
  }
  submitted_.clear();
  submitted_bytes_ = 0;
}

void AioBridge::Cancel(uint64_t ticket) {
  const auto slot = static_cast<uint32_t>(ticket);
  if (slot >= calls_.size()) return;
  Call& call = calls_[slot];
  if (call.request != nullptr && call.generation == static_cast<uint32_t>(ticket >> 32)) {
    engine_->Cancel(call.request);
  }
}

py::list AioBridge::Drain() {
  completions_.Clear();
  completions_.Drain(&finished_);
  py::list answers(finished_.size());
  for (size_t i = 0; i < finished_.size(); ++i) {
    Completion& completion = finished_[i];
    if (completion.request == nullptr) {
      const Call& call = calls_[static_cast<uint32_t>(completion.ticket)];
      answers[i] = py::make_tuple(call.tag, py::none(), ToBytes(completion.answer));
      continue;
    }
    answers[i] = ToTuple(FinishCall(completion.request->ticket), completion);
    completion.request->Reset();
    free_requests_.Give(std::move(completion.request));
  }
  finished_.clear();
  return answers;
}

uint64_t AioBridge::NewCall(InferRequest* request, py::object tag) {
  if (free_calls_.empty()) {
    free_calls_.push_back(static_cast<uint32_t>(calls_.size()));
    calls_.emplace_back();
  }
  const uint32_t slot = free_calls_.back();
  free_calls_.pop_back();
  Call& call = calls_[slot];
  call.request = request;
  call.tag = std::move(tag);
  return static_cast<uint64_t>(call.generation) << 32 | slot;
}

py::object AioBridge::FinishCall(uint64_t ticket) {
  const auto slot = static_cast<uint32_t>(ticket);
  Call& call = calls_[slot];
  call.request = nullptr;
  ++call.generation;
  free_calls_.push_back(slot);
  return std::exchange(call.tag, py::object());
}

void RegisterAioBridge(py::module_& m) {
  py::class_<AioBridge>(m, "AioBridge")
      .def(py::init<std::shared_ptr<Engine>>(), py::arg("engine"))
      .def("fileno", &AioBridge::fileno)
      .def("submit", &AioBridge::Submit, py::arg("request"), py::arg("tag"), py::arg("timeout_s") = py::none(),
           py::kw_only(), py::arg("in_stream") = false, py::arg("errors_end_stream") = false)
      .def("flush", &AioBridge::Flush)
      .def("cancel", &AioBridge::Cancel, py::arg("ticket"))
      .def("drain", &AioBridge::Drain)
      .def_property_readonly("in_flight", &AioBridge::in_flight);
}

}  // namespace gristmill::python
