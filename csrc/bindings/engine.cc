// SPDX-License-Identifier: Apache-2.0
#include "engine/engine.h"

#include <pybind11/stl.h>

#include <map>
#include <string>
#include <vector>

#include "bindings/bindings.h"

namespace py = pybind11;

namespace gristmill::python {
namespace {

using ParametersByBackend = std::map<std::string, Parameters>;

py::dict ToDict(const DurationTotal& total) {
  py::dict dict;
  dict["count"] = total.count;
  dict["ns"] = total.ns;
  return dict;
}

const char* DropReasonName(DropReason reason) {
  switch (reason) {
    case DropReason::kQueueFull:
      return "queue_full";
    case DropReason::kUnattainable:
      return "unattainable";
    case DropReason::kExpired:
      return "expired";
    case DropReason::kHopeless:
      return "hopeless";
    case DropReason::kTimeout:
      return "timeout";
    case DropReason::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

py::dict ToDict(const StatisticsSnapshot& snapshot) {
  py::list batches;
  for (const auto& [batch_size, totals] : snapshot.by_batch_size) {
    py::dict batch;
    batch["batch_size"] = batch_size;
    batch["compute_input"] = ToDict(totals.compute_input);
    batch["compute_infer"] = ToDict(totals.compute_infer);
    batch["compute_output"] = ToDict(totals.compute_output);
    batches.append(std::move(batch));
  }
  py::dict dropped;
  for (size_t i = 0; i < kDropReasons; ++i) dropped[DropReasonName(static_cast<DropReason>(i))] = snapshot.dropped[i];
  py::dict dict;
  dict["last_inference_ms"] = snapshot.last_inference_ms;
  dict["inference_count"] = snapshot.inference_count;
  dict["execution_count"] = snapshot.execution_count;
  dict["success"] = ToDict(snapshot.success);
  dict["fail"] = ToDict(snapshot.fail);
  dict["queue"] = ToDict(snapshot.queue);
  dict["compute_input"] = ToDict(snapshot.compute_input);
  dict["compute_infer"] = ToDict(snapshot.compute_infer);
  dict["compute_output"] = ToDict(snapshot.compute_output);
  dict["cache_hit"] = ToDict(snapshot.cache_hit);
  dict["cache_miss"] = ToDict(snapshot.cache_miss);
  dict["dropped"] = std::move(dropped);
  dict["batch_stats"] = std::move(batches);
  return dict;
}

std::shared_ptr<OpenedModel> OpenModel(const std::shared_ptr<Engine>& engine, const std::string& backend,
                                       std::string path, Parameters parameters) {
  auto opened = std::make_shared<OpenedModel>();
  opened->engine = engine;
  CallWithoutGil([&] {
    return engine->OpenModel(backend, {.path = std::move(path), .parameters = std::move(parameters)}, &opened->model);
  });
  return opened;
}

std::shared_ptr<ServableHandle> Load(const std::shared_ptr<Engine>& engine, const OpenedModel& opened,
                                     const ModelConfig& config) {
  auto handle = std::make_shared<ServableHandle>();
  handle->engine = engine;
  CallWithoutGil([&] { return engine->Load(opened.model, config, &handle->servable); });
  return handle;
}

std::shared_ptr<ServableHandle> LoadEnsemble(const std::shared_ptr<Engine>& engine, const ModelConfig& config) {
  auto handle = std::make_shared<ServableHandle>();
  handle->engine = engine;
  CallWithoutGil([&] { return engine->LoadEnsemble(config, &handle->servable); });
  return handle;
}

void Publish(Engine& engine, const std::string& name, const std::vector<std::shared_ptr<ServableHandle>>& servables,
             std::map<std::string, int64_t> aliases, std::string reason) {
  ModelEntry entry;
  entry.reason = std::move(reason);
  for (const auto& handle : servables) entry.versions[handle->servable->config().version] = handle->servable;
  for (auto& [alias, version] : aliases) {
    if (!entry.versions.contains(version)) {
      ThrowIfError(InvalidArgument("alias '" + alias + "' of model '" + name + "' points to version " +
                                   std::to_string(version) + ", which is not among those published"));
    }
    entry.aliases.emplace(alias, version);
  }
  engine.Publish(name, std::move(entry));
}

}  // namespace

void RegisterEngine(py::module_& m) {
  py::class_<ServableHandle, std::shared_ptr<ServableHandle>>(m, "Servable")
      .def_property_readonly("version", [](const ServableHandle& self) { return self.servable->config().version; })
      .def_property_readonly("pending", [](const ServableHandle& self) { return self.servable->pending(); })
      .def("statistics", [](const ServableHandle& self) { return ToDict(self.servable->statistics()); })
      .def(
          "drain", [](const ServableHandle& self) { self.servable->Drain(); },
          py::call_guard<py::gil_scoped_release>());

  py::class_<Engine, std::shared_ptr<Engine>>(m, "Engine")
      .def(py::init([](std::string plugin_directory, ParametersByBackend backend_parameters, size_t max_answer_bytes,
                       size_t response_cache_bytes, std::map<std::string, int64_t> resources) {
             return std::make_shared<Engine>(EngineOptions{.plugin_directory = std::move(plugin_directory),
                                                           .backend_parameters = std::move(backend_parameters),
                                                           .buffers = BufferPoolOptions::Limited(max_answer_bytes),
                                                           .response_cache = {.max_bytes = response_cache_bytes},
                                                           .resources = std::move(resources)},
                                             &SystemClock());
           }),
           py::kw_only(), py::arg("plugin_directory"), py::arg("backend_parameters") = ParametersByBackend{},
           py::arg("max_answer_bytes") = 0, py::arg("response_cache_bytes") = 0,
           py::arg("resources") = std::map<std::string, int64_t>{})
      .def("cache_usage",
           [](const Engine& self) {
             const ResponseCache::Usage usage = self.cache_usage();
             py::dict dict;
             dict["entries"] = usage.entries;
             dict["bytes"] = usage.bytes;
             dict["evictions"] = usage.evictions;
             return dict;
           })
      .def(
          "backend_version",
          [](Engine& self, const std::string& name) {
            Backend* backend = nullptr;
            CallWithoutGil([&] { return self.GetBackend(name, &backend); });
            return backend->version();
          },
          py::arg("backend"))
      .def("open_model", &OpenModel, py::kw_only(), py::arg("backend"), py::arg("path"),
           py::arg("parameters") = Parameters{})
      .def("load", &Load, py::arg("model"), py::arg("options"))
      .def("load_ensemble", &LoadEnsemble, py::arg("options"))
      .def("publish", &Publish, py::arg("name"), py::arg("servables"), py::kw_only(),
           py::arg("aliases") = std::map<std::string, int64_t>{}, py::arg("reason") = "")
      .def("forget", &Engine::Forget, py::arg("name"));
}

}  // namespace gristmill::python
