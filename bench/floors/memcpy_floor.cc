// SPDX-License-Identifier: Apache-2.0
// What it costs to copy a tensor once: each line "BYTES SECONDS" on standard input is answered with a line of
// microseconds per copy.
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <vector>

int main() {
  using Clock = std::chrono::steady_clock;
  size_t bytes = 0;
  double seconds = 0;
  while (std::scanf("%zu %lf", &bytes, &seconds) == 2) {
    // Written once, or reading them would be reading the kernel's page of zeros.
    const std::vector<char> from(bytes, 'x');
    std::vector<char> to(bytes, 'y');
    // So many copies between two looks at the clock that it does not count.
    const size_t at_once = 1 + (1 << 20) / (bytes + 1);
    size_t copies = 0;
    const auto begin = Clock::now();
    std::chrono::duration<double> taken{};
    for (; taken.count() < seconds; taken = Clock::now() - begin) {
      for (size_t i = 0; i < at_once; ++i) {
        std::memcpy(to.data(), from.data(), bytes);
        asm volatile("" : : "r"(to.data()) : "memory");  // each copy is wanted
      }
      copies += at_once;
    }
    std::printf("%.6f\n", taken.count() / static_cast<double>(copies) * 1e6);
    std::fflush(stdout);
  }
}
