// SPDX-License-Identifier: Apache-2.0
// Names for clang's thread-safety analysis; nothing under other compilers. `make check` compiles csrc with the analysis
// on.
#pragma once

#if defined(__clang__)
#define GRISTMILL_THREAD_ANNOTATION(x) __attribute__((x))
#else
#define GRISTMILL_THREAD_ANNOTATION(x)
#endif

#define GUARDED_BY(mutex) GRISTMILL_THREAD_ANNOTATION(guarded_by(mutex))
#define REQUIRES(...) GRISTMILL_THREAD_ANNOTATION(requires_capability(__VA_ARGS__))
#define NO_THREAD_SAFETY_ANALYSIS GRISTMILL_THREAD_ANNOTATION(no_thread_safety_analysis)
