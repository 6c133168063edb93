// SPDX-License-Identifier: Apache-2.0
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "bindings/bindings.h"

namespace py = pybind11;

namespace gristmill::python {
namespace {

TensorSpec MakeTensorSpec(std::string name, const std::string& datatype, std::vector<int64_t> dims) {
  const DataType dtype = ParseDataType(datatype);
  if (dtype == DataType::kInvalid) {
    ThrowIfError(InvalidArgument("'" + datatype + "' is not a datatype of the inference protocol (tensor '" + name +
                                 "'); expected FP32, INT64, BYTES or the like"));
  }
  return {.name = std::move(name), .dtype = dtype, .dims = std::move(dims)};
}

}  // namespace

void RegisterModel(py::module_& m) {
  py::class_<TensorSpec>(m, "TensorSpec")
      .def(py::init(&MakeTensorSpec), py::arg("name"), py::arg("datatype"), py::arg("dims"))
      .def_readonly("name", &TensorSpec::name)
      .def_property_readonly("datatype", [](const TensorSpec& spec) { return std::string(DataTypeName(spec.dtype)); })
      .def_readonly("dims", &TensorSpec::dims)
      .def("__repr__", [](const TensorSpec& spec) {
        return "TensorSpec('" + spec.name + "', '" + std::string(DataTypeName(spec.dtype)) + "', " +
               Shape(spec.dims).ToString() + ")";
      });

  py::class_<QueueLevel>(m, "QueueLevel")
      .def(py::init([](int64_t max_queue_size, int64_t default_timeout_us, bool allow_timeout_override,
                       bool delays_timed_out) {
             return QueueLevel{.max_queue_size = max_queue_size,
                               .default_timeout_us = default_timeout_us,
                               .allow_timeout_override = allow_timeout_override,
                               .delays_timed_out = delays_timed_out};
           }),
           py::kw_only(), py::arg("max_queue_size") = 0, py::arg("default_timeout_us") = 0,
           py::arg("allow_timeout_override") = true, py::arg("delays_timed_out") = false);

  py::class_<ModelConfig>(m, "ModelOptions")
      .def(py::init([](std::string name, int64_t version, int64_t max_batch_size, std::vector<TensorSpec> inputs,
                       std::vector<TensorSpec> outputs, bool dynamic_batching, int64_t max_queue_delay_us,
                       std::vector<int64_t> preferred_batch_sizes, std::vector<QueueLevel> queue_levels,
                       size_t default_queue_level, bool preserve_ordering, int instance_count) {
             return ModelConfig{.name = std::move(name),
                                .version = version,
                                .max_batch_size = max_batch_size,
                                .inputs = std::move(inputs),
                                .outputs = std::move(outputs),
                                .batching = {.dynamic = dynamic_batching,
                                             .max_queue_delay_us = max_queue_delay_us,
                                             .preferred_rows = std::move(preferred_batch_sizes),
                                             .levels = std::move(queue_levels),
                                             .default_level = default_queue_level,
                                             .preserve_order = preserve_ordering},
                                .instance_count = instance_count};
           }),
           py::kw_only(), py::arg("name"), py::arg("version"), py::arg("max_batch_size"), py::arg("inputs"),
           py::arg("outputs"), py::arg("dynamic_batching") = false, py::arg("max_queue_delay_us") = 0,
           py::arg("preferred_batch_sizes") = std::vector<int64_t>{},
           py::arg("queue_levels") = std::vector<QueueLevel>(1), py::arg("default_queue_level") = 0,
           py::arg("preserve_ordering") = false, py::arg("instance_count") = 1);

  py::class_<OpenedModel, std::shared_ptr<OpenedModel>>(m, "OpenedModel")
      .def_property_readonly("inputs", [](const OpenedModel& opened) { return opened.model->signature().inputs; })
      .def_property_readonly("outputs", [](const OpenedModel& opened) { return opened.model->signature().outputs; });
}

}  // namespace gristmill::python
