// Socket addresses: from what a caller gave to what the kernel takes, and back to text.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace edgewire {

// An address as bind(2) and connect(2) take it.
struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;

  const sockaddr* get() const noexcept { return reinterpret_cast<const sockaddr*>(&storage); }
  sockaddr* get() noexcept { return reinterpret_cast<sockaddr*>(&storage); }
  int family() const noexcept { return storage.ss_family; }
};

// The 24 bytes of an address that a connection keeps. A Unix path is not among them: it is asked for again.
struct CompactAddress {
  uint16_t family = 0;  // 0: not known
  uint16_t port = 0;    // host byte order
  uint32_t scope = 0;   // IPv6 zone
  uint8_t bytes[16] = {};
};

// The length of a path with its terminating zero, or of an abstract name with its leading zero.
constexpr size_t kUnixPathBytesMax = sizeof(sockaddr_un::sun_path);

// 0, or -EINVAL when `text` is not a numeric IPv4 or IPv6 address ("fe80::1%eth0" has a zone).
int address_from_ip(const char* text, uint16_t port, SocketAddress* into) noexcept;
// A path, or on Linux an abstract name when the first byte is zero. 0, -EINVAL when empty or unknown to the system, -ENAMETOOLONG.
int address_from_path(const char* path, size_t bytes, SocketAddress* into) noexcept;
// The other way: up to the terminating zero; of an abstract name every byte counts. Empty for a socket without a name.
std::string_view unix_path(const SocketAddress& address) noexcept;

CompactAddress compact(const SocketAddress& address) noexcept;

// "127.0.0.1", "::1", "fe80::1%2". Writes a terminated string; empty when the family is not an IP family.
constexpr size_t kIpTextBytes = 64;
void format_ip(const CompactAddress& address, char (&into)[kIpTextBytes]) noexcept;

}  // namespace edgewire
