// Runs the core's tests. Property tests draw from one seed, new in every run and printed; to repeat a failure:
//   EDGEWIRE_SEED=<the seed> edgewire_core_test --gtest_filter=<the test>
#include <gtest/gtest.h>

#include <cinttypes>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>

namespace edgewire::test {

// Test files declare this themselves.
uint64_t seed() {
  static const uint64_t value = [] {
    const char* const given = std::getenv("EDGEWIRE_SEED");
    return given != nullptr ? std::strtoull(given, nullptr, 0) : uint64_t{std::random_device{}()};
  }();
  return value;
}

}  // namespace edgewire::test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  std::printf("EDGEWIRE_SEED=%" PRIu64 "\n", edgewire::test::seed());
  std::fflush(stdout);  // before any death test forks
  // As Node does: on macOS an accepted socket may be shut before SO_NOSIGPIPE can be set.
  std::signal(SIGPIPE, SIG_IGN);
  return RUN_ALL_TESTS();
}
