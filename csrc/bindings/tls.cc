// SPDX-License-Identifier: Apache-2.0
#include "transport/tls.h"

#include "bindings/bindings.h"

namespace py = pybind11;

namespace gristmill::python {
namespace {

TlsOptions Options(const py::bytes& certificate_chain, const py::bytes& private_key, const py::bytes& client_roots) {
  return {.certificate_chain = certificate_chain, .private_key = private_key, .client_roots = client_roots};
}

}  // namespace

void RegisterTls(py::module_& m) {
  py::class_<TlsContext, std::shared_ptr<TlsContext>>(m, "TlsContext")
      .def(
          py::init([](const py::bytes& certificate_chain, const py::bytes& private_key, const py::bytes& client_roots) {
            std::shared_ptr<TlsContext> context;
            ThrowIfError(TlsContext::Create(Options(certificate_chain, private_key, client_roots), &context));
            return context;
          }),
          py::kw_only(), py::arg("certificate_chain"), py::arg("private_key"), py::arg("client_roots"))
      .def(
          "update",
          [](TlsContext& self, const py::bytes& certificate_chain, const py::bytes& private_key,
             const py::bytes& client_roots) {
            ThrowIfError(self.Update(Options(certificate_chain, private_key, client_roots)));
          },
          py::kw_only(), py::arg("certificate_chain"), py::arg("private_key"), py::arg("client_roots"));
}

}  // namespace gristmill::python
