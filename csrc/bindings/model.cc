// SPDX-License-Identifier: Apache-2.0
#include <pybind11/stl.h>

#include <map>
#include <optional>
#include <string>
#include <utility>
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

ControlInput MakeControlInput(const std::string& kind, TensorSpec tensor, double off, double on) {
  static const std::map<std::string, ControlInput::Kind> kKinds = {{"start", ControlInput::Kind::kStart},
                                                                   {"end", ControlInput::Kind::kEnd},
                                                                   {"ready", ControlInput::Kind::kReady},
                                                                   {"corrid", ControlInput::Kind::kCorrelationId}};
  const auto found = kKinds.find(kind);
  if (found == kKinds.end()) {
    ThrowIfError(InvalidArgument("expected a control of start, end, ready or corrid, got '" + kind + "'"));
  }
  return {.kind = found->second, .tensor = std::move(tensor), .off = off, .on = on};
}

StateTensor MakeStateTensor(TensorSpec input, std::string output_name, std::vector<int64_t> initial_dims,
                            const py::bytes& initial_data) {
  return {.input = std::move(input),
          .output_name = std::move(output_name),
          .initial_dims = std::move(initial_dims),
          .initial_data = initial_data};
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

  py::class_<ControlInput>(m, "ControlInput")
      .def(py::init(&MakeControlInput), py::kw_only(), py::arg("kind"), py::arg("tensor"), py::arg("off") = 0.0,
           py::arg("on") = 1.0);

  py::class_<StateTensor>(m, "StateTensor")
      .def(py::init(&MakeStateTensor), py::kw_only(), py::arg("input"), py::arg("output_name"), py::arg("initial_dims"),
           py::arg("initial_data"));

  py::class_<SequenceOptions>(m, "SequenceOptions")
      .def(py::init([](int64_t max_idle_us, int64_t max_sequences_per_instance, std::vector<ControlInput> controls,
                       std::vector<StateTensor> states) {
             return SequenceOptions{.max_idle_us = max_idle_us,
                                    .max_sequences_per_instance = max_sequences_per_instance,
                                    .controls = std::move(controls),
                                    .states = std::move(states)};
           }),
           py::kw_only(), py::arg("max_idle_us"), py::arg("max_sequences_per_instance"), py::arg("controls"),
           py::arg("states"));

  py::class_<CacheOptions>(m, "CacheOptions")
      .def(py::init([](int64_t ttl_us, std::vector<std::string> key_inputs) {
             return CacheOptions{.ttl_us = ttl_us, .key_inputs = std::move(key_inputs)};
           }),
           py::kw_only(), py::arg("ttl_us") = 0, py::arg("key_inputs") = std::vector<std::string>{});

  using Names = std::map<std::string, std::string>;
  py::class_<EnsembleStep>(m, "EnsembleStep")
      .def(py::init([](std::string model, std::string version, Names inputs, Names outputs) {
             return EnsembleStep{.model = std::move(model),
                                 .version = std::move(version),
                                 .inputs = std::move(inputs),
                                 .outputs = std::move(outputs)};
           }),
           py::kw_only(), py::arg("model"), py::arg("version") = "", py::arg("inputs"), py::arg("outputs"));

  py::class_<ModelConfig>(m, "ModelOptions")
      .def(py::init([](std::string name, int64_t version, int64_t max_batch_size, std::vector<TensorSpec> inputs,
                       std::vector<TensorSpec> outputs, bool dynamic_batching, int64_t max_queue_delay_us,
                       std::vector<int64_t> preferred_batch_sizes, std::vector<QueueLevel> queue_levels,
                       size_t default_queue_level, bool preserve_ordering, std::optional<SequenceOptions> sequence,
                       bool decoupled, std::optional<CacheOptions> cache, std::vector<EnsembleStep> steps,
                       const std::map<std::string, int64_t>& resources, int64_t weight, bool has_own_cpus,
                       int instance_count) {
             std::vector<ResourceNeed> needs;
             for (const auto& [resource, count] : resources) needs.push_back({.name = resource, .count = count});
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
                                .sequence = std::move(sequence),
                                .decoupled = decoupled,
                                .cache = std::move(cache),
                                .steps = std::move(steps),
                                .resources = std::move(needs),
                                .weight = weight,
                                .has_own_cpus = has_own_cpus,
                                .instance_count = instance_count};
           }),
           py::kw_only(), py::arg("name"), py::arg("version"), py::arg("max_batch_size"), py::arg("inputs"),
           py::arg("outputs"), py::arg("dynamic_batching") = false, py::arg("max_queue_delay_us") = 0,
           py::arg("preferred_batch_sizes") = std::vector<int64_t>{},
           py::arg("queue_levels") = std::vector<QueueLevel>(1), py::arg("default_queue_level") = 0,
           py::arg("preserve_ordering") = false, py::arg("sequence") = std::nullopt, py::arg("decoupled") = false,
           py::arg("cache") = std::nullopt, py::arg("steps") = std::vector<EnsembleStep>{},
           py::arg("resources") = std::map<std::string, int64_t>{}, py::arg("weight") = 1,
           py::arg("has_own_cpus") = false, py::arg("instance_count") = 1);

  py::class_<OpenedModel, std::shared_ptr<OpenedModel>>(m, "OpenedModel")
      .def_property_readonly("inputs", [](const OpenedModel& opened) { return opened.model->signature().inputs; })
      .def_property_readonly("outputs", [](const OpenedModel& opened) { return opened.model->signature().outputs; });
}

}  // namespace gristmill::python
