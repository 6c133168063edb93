// SPDX-License-Identifier: Apache-2.0
#include "bindings/bindings.h"

namespace py = pybind11;

namespace gristmill::python {
namespace {

// The interpreter's own reference; lives as long as the module.
PyObject* core_error = nullptr;

py::object ArgumentProperty(int index, const char* doc) {
  const py::object property = py::module_::import("builtins").attr("property");
  py::cpp_function getter([index](const py::object& self) { return py::object(self.attr("args")[py::int_(index)]); });
  return property(getter, py::none(), py::none(), doc);
}

}  // namespace

void RegisterErrors(py::module_& m) {
  core_error = PyErr_NewExceptionWithDoc("gristmill._core.CoreError",
                                         "A Status from the core. `args` is (grpc status code as int, message).",
                                         nullptr, nullptr);
  if (core_error == nullptr) throw py::error_already_set();
  const py::object type = py::reinterpret_borrow<py::object>(core_error);
  type.attr("code") = ArgumentProperty(0, "The gRPC status code, as int.");
  type.attr("message") = ArgumentProperty(1, "What was expected, what came, what to do.");
  m.add_object("CoreError", type);
}

void ThrowIfError(const Status& status) {
  if (status.ok()) return;
  const py::tuple arguments = py::make_tuple(static_cast<int>(status.code()), status.message());
  PyErr_SetObject(core_error, arguments.ptr());
  throw py::error_already_set();
}

}  // namespace gristmill::python
