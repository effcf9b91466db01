#include "core/sockaddr.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace edgewire {
namespace {

#ifdef __linux__
constexpr bool kHasAbstractNames = true;
#else
constexpr bool kHasAbstractNames = false;
#endif

int zone_index(const char* zone) noexcept {
  unsigned int index = if_nametoindex(zone);
  if (index != 0) return static_cast<int>(index);
  char* end = nullptr;
  unsigned long number = std::strtoul(zone, &end, 10);
  return *zone != 0 && *end == 0 && number <= INT32_MAX ? static_cast<int>(number) : -1;
}

int address_from_ip6(const char* text, uint16_t port, SocketAddress* into) noexcept {
  auto* address = reinterpret_cast<sockaddr_in6*>(&into->storage);
  char host[INET6_ADDRSTRLEN];
  const char* zone = std::strchr(text, '%');
  size_t bytes = zone != nullptr ? static_cast<size_t>(zone - text) : std::strlen(text);
  if (bytes >= sizeof host) return -EINVAL;
  std::memcpy(host, text, bytes);
  host[bytes] = 0;
  if (inet_pton(AF_INET6, host, &address->sin6_addr) != 1) return -EINVAL;
  if (zone != nullptr) {
    int index = zone_index(zone + 1);
    if (index < 0) return -EINVAL;
    address->sin6_scope_id = static_cast<uint32_t>(index);
  }
  address->sin6_family = AF_INET6;
  address->sin6_port = htons(port);
  into->length = sizeof *address;
  return 0;
}

}  // namespace

int address_from_ip(const char* text, uint16_t port, SocketAddress* into) noexcept {
  *into = SocketAddress{};
  auto* address = reinterpret_cast<sockaddr_in*>(&into->storage);
  if (inet_pton(AF_INET, text, &address->sin_addr) != 1) return address_from_ip6(text, port, into);
  address->sin_family = AF_INET;
  address->sin_port = htons(port);
  into->length = sizeof *address;
  return 0;
}

int address_from_path(const char* path, size_t bytes, SocketAddress* into) noexcept {
  *into = SocketAddress{};
  if (bytes == 0) return -EINVAL;
  bool abstract = path[0] == 0;
  if (abstract && !kHasAbstractNames) return -EINVAL;
  if (bytes + (abstract ? 0 : 1) > kUnixPathBytesMax) return -ENAMETOOLONG;
  auto* address = reinterpret_cast<sockaddr_un*>(&into->storage);
  address->sun_family = AF_UNIX;
  std::memcpy(address->sun_path, path, bytes);
  // unix(7): a path's length counts its terminating zero; of an abstract name every byte counts, zeros too.
  into->length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + bytes + (abstract ? 0 : 1));
  return 0;
}

std::string_view unix_path(const SocketAddress& address) noexcept {
  size_t head = offsetof(sockaddr_un, sun_path);
  if (address.family() != AF_UNIX || address.length <= head) return "";
  const char* path = reinterpret_cast<const sockaddr_un*>(&address.storage)->sun_path;
  size_t bytes = std::min<size_t>(address.length - head, kUnixPathBytesMax);
  // macOS gives a socket without a name as a row of zeros.
  if (path[0] == 0 && !kHasAbstractNames) return "";
  return {path, path[0] == 0 ? bytes : strnlen(path, bytes)};
}

CompactAddress compact(const SocketAddress& address) noexcept {
  CompactAddress out;
  out.family = static_cast<uint16_t>(address.family());
  if (address.length == 0) out.family = 0;
  if (out.family == AF_INET) {
    const auto* in = reinterpret_cast<const sockaddr_in*>(&address.storage);
    out.port = ntohs(in->sin_port);
    std::memcpy(out.bytes, &in->sin_addr, sizeof in->sin_addr);
  } else if (out.family == AF_INET6) {
    const auto* in6 = reinterpret_cast<const sockaddr_in6*>(&address.storage);
    out.port = ntohs(in6->sin6_port);
    out.scope = in6->sin6_scope_id;
    std::memcpy(out.bytes, &in6->sin6_addr, sizeof in6->sin6_addr);
  }
  return out;
}

void format_ip(const CompactAddress& address, char (&into)[kIpTextBytes]) noexcept {
  into[0] = 0;
  if (address.family != AF_INET && address.family != AF_INET6) return;
  if (inet_ntop(address.family, address.bytes, into, sizeof into) == nullptr) {
    into[0] = 0;
    return;
  }
  if (address.scope == 0) return;
  char name[IF_NAMESIZE];
  size_t used = std::strlen(into);
  if (if_indextoname(address.scope, name) != nullptr) {
    std::snprintf(into + used, sizeof into - used, "%%%s", name);
  } else {
    std::snprintf(into + used, sizeof into - used, "%%%u", address.scope);
  }
}

}  // namespace edgewire
