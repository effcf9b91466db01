// Checks for what only a bug in edgewire itself can break.
//
// EDGEWIRE_CHECK guards an invariant whose violation would corrupt memory or bytes; it stays on in release builds and
// ends the process with the place and the condition. Nothing that a caller or a peer does may ever reach one: their
// mistakes are error codes. EDGEWIRE_DCHECK is for checks too costly for the hot path; test builds switch it on.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace edgewire {

[[noreturn]] inline void check_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "edgewire: internal check failed: %s (%s:%d)\n", condition, file, line);
  std::abort();
}

}  // namespace edgewire

#define EDGEWIRE_CHECK(condition) \
  (__builtin_expect(!!(condition), 1) ? static_cast<void>(0) : ::edgewire::check_failed(#condition, __FILE__, __LINE__))

#ifdef EDGEWIRE_DCHECKS
#define EDGEWIRE_DCHECK(condition) EDGEWIRE_CHECK(condition)
#else
#define EDGEWIRE_DCHECK(condition) static_cast<void>(0)
#endif
