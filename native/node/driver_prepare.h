// Which libuv the driver prepare knows. By itself, and without libuv, so that the core's tests can ask about versions that
// this machine does not have.
#pragma once

namespace edgewire {

// libuv 1.46 is Node 20's.
constexpr unsigned kUvMajor = 1;
constexpr unsigned kUvMinorMin = 46;

// `version` as uv_version() gives it: major << 16 | minor << 8 | patch.
constexpr bool is_known_uv(unsigned version) noexcept {
  return version >> 16 == kUvMajor && (version >> 8 & 0xFF) >= kUvMinorMin;
}

}  // namespace edgewire
