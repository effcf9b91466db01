// The driver prepare relies on what libuv does and does not promise: it must refuse one that nobody has looked at.
#include "node/driver_prepare.h"

#include <gtest/gtest.h>

namespace edgewire::test {
namespace {

constexpr unsigned version(unsigned major, unsigned minor, unsigned patch) { return major << 16 | minor << 8 | patch; }

TEST(PrepareDriverVersions, KnowsLibuvFromNode20OnWithinItsMajorVersion) {
  EXPECT_TRUE(is_known_uv(version(1, 46, 0)));
  EXPECT_TRUE(is_known_uv(version(1, 52, 1)));
  EXPECT_TRUE(is_known_uv(version(1, 255, 255)));
}

TEST(PrepareDriverVersions, RefusesOlderAndOtherMajorVersions) {
  EXPECT_FALSE(is_known_uv(version(1, 45, 255)));
  EXPECT_FALSE(is_known_uv(version(1, 0, 0)));
  EXPECT_FALSE(is_known_uv(version(0, 46, 0)));
  EXPECT_FALSE(is_known_uv(version(2, 0, 0)));
  EXPECT_FALSE(is_known_uv(version(2, 50, 0)));
  EXPECT_FALSE(is_known_uv(0));
}

}  // namespace
}  // namespace edgewire::test
