// SPDX-License-Identifier: Apache-2.0
// The Python extension gristmill._core: one register function per subject, and how a Status becomes an exception.
// server/gristmill/_core.pyi describes the result; a test holds the two against each other.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <string_view>
#include <utility>

#include "core/model_config.h"
#include "core/status.h"
#include "engine/engine.h"

namespace gristmill::python {

void RegisterErrors(pybind11::module_& m);
void RegisterModel(pybind11::module_& m);
void RegisterEngine(pybind11::module_& m);
void RegisterAioBridge(pybind11::module_& m);
void RegisterTls(pybind11::module_& m);
void RegisterNativeTransport(pybind11::module_& m);
void RegisterSimulation(pybind11::module_& m);

/// Raises CoreError unless `status` is OK. Needs the GIL.
void ThrowIfError(const Status& status);

/// Text that quotes what a client sent, which need not be UTF-8.
inline pybind11::str Text(std::string_view text) {
  return pybind11::reinterpret_steal<pybind11::str>(
      PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace"));
}

/// Runs `call`, which returns a Status, without the GIL, then raises its error if it has one.
template <typename Call>
void CallWithoutGil(Call&& call) {
  Status status;
  {
    pybind11::gil_scoped_release release;
    status = call();
  }
  ThrowIfError(status);
}

/// A model file opened by a backend. Keeps the engine, and so the backend, alive.
struct OpenedModel {
  std::shared_ptr<Engine> engine;
  std::shared_ptr<BackendModel> model;

  ~OpenedModel() {
    pybind11::gil_scoped_release release;  // a runtime may take its time to let a model go
    model.reset();
  }
};

/// A servable as Python holds it. Keeps the engine alive.
struct ServableHandle {
  std::shared_ptr<Engine> engine;
  std::shared_ptr<Servable> servable;

  ~ServableHandle() {
    pybind11::gil_scoped_release release;  // the last reference drains
    servable.reset();
  }
};

}  // namespace gristmill::python
