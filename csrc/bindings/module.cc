// SPDX-License-Identifier: Apache-2.0
#include "bindings/bindings.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "The compiled core: engine, backends, and the bridge that carries requests into it.";
  m.attr("__version__") = GRISTMILL_VERSION;
  gristmill::python::RegisterErrors(m);
  gristmill::python::RegisterModel(m);
  gristmill::python::RegisterEngine(m);
  gristmill::python::RegisterAioBridge(m);
  gristmill::python::RegisterTls(m);
  gristmill::python::RegisterNativeTransport(m);
  gristmill::python::RegisterSimulation(m);
}
