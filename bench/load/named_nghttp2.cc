// SPDX-License-Identifier: Apache-2.0
// All that libnghttp2.a lacks to be linked into a shared library that keeps the names of its functions, which a profile
// needs and the distribution's shared library has not: a `stderr` of its own (for messages of debug builds), since code
// that is not built for shared libraries cannot reach libc's.
extern "C" {
__attribute__((visibility("hidden"))) void* stderr = nullptr;
}
