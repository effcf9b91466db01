// The addon's exports: what lib/loop.ts calls. Arguments come from lib/ only, which has checked them; a failure is a
// negative errno in the result.
//
//   abiVersion                                  abi::kAbiVersion
//   open(hooks, budgetBytes, debug, driver)     the shared memory or -errno; once per environment
//   flush()                                     executes the commands now
//   listen(kind, name, port, flags, backlog, lowWater)        listener index or -errno
//   dial(kind, name, port, local, localPort, flags, lowWater) connection index or -errno
//   address(index, which)                       [family, address, port] or undefined
//   setOption(index, option, value)             0 or -errno
//   pin(bytes)                                  id, for kCommandWritePinned
//   setScope(resource)                          dispatch() is called in this call's async context; false: cannot be had
//   setRef(on)                                  does edgewire keep the process alive?
//   setBudget(bytes)                            the slab pool's budget
#include <napi.h>
#include <netinet/in.h>

#include <cerrno>
#include <string>
#include <string_view>

#include "core/sys.h"
#include "node/env.h"

namespace edgewire {
namespace {

Env& env_of(const Napi::CallbackInfo& info) { return *info.Env().GetInstanceData<Env>(); }

Napi::Value number(const Napi::CallbackInfo& info, int64_t value) {
  return Napi::Number::New(info.Env(), static_cast<double>(value));
}

int address_from(int32_t kind, const std::string& name, uint16_t port, SocketAddress* into) noexcept {
  return kind == abi::kNamePath ? address_from_path(name.data(), name.size(), into)
                                : address_from_ip(name.c_str(), port, into);
}

Napi::Value open(const Napi::CallbackInfo& info) {
  Env& env = env_of(info);
  if (env.is_open()) return info.Env().Undefined();
  double budget_bytes = info[1].ToNumber().DoubleValue();
  return env.open(info[0].As<Napi::Object>(), static_cast<uint64_t>(budget_bytes), info[2].ToBoolean(),
                  info[3].ToNumber().Int32Value());
}

Napi::Value flush(const Napi::CallbackInfo& info) {
  Env& env = env_of(info);
  if (!env.is_open()) return info.Env().Undefined();
  env.reactor().flush();
  env.schedule();
  return info.Env().Undefined();
}

Napi::Value listen(const Napi::CallbackInfo& info) {
  Env& env = env_of(info);
  if (!env.is_open()) return number(info, -EBADF);
  int32_t kind = info[0].ToNumber().Int32Value();
  int32_t port = info[2].ToNumber().Int32Value();
  int32_t flags = info[3].ToNumber().Int32Value();
  ListenOptions options;
  options.ipv6_only = (flags & abi::kOpenIpv6Only) != 0;
  options.reuse_port = (flags & abi::kOpenReusePort) != 0;
  options.no_delay = (flags & abi::kOpenNoDelay) != 0;
  options.backlog = info[4].ToNumber().Int32Value();
  options.low_water_bytes = info[5].ToNumber().Uint32Value();
  if (kind == abi::kNameDescriptor) return number(info, env.reactor().listen_fd(port, options));
  SocketAddress address;
  int error = address_from(kind, info[1].ToString().Utf8Value(), static_cast<uint16_t>(port), &address);
  return number(info, error < 0 ? error : env.reactor().listen(address, options));
}

Napi::Value dial(const Napi::CallbackInfo& info) {
  Env& env = env_of(info);
  if (!env.is_open()) return number(info, -EBADF);
  int32_t kind = info[0].ToNumber().Int32Value();
  SocketAddress address;
  SocketAddress local;
  int error = address_from(kind, info[1].ToString().Utf8Value(), static_cast<uint16_t>(info[2].ToNumber().Int32Value()),
                           &address);
  bool bound = info[3].IsString();
  if (error == 0 && bound) {
    error = address_from(kind, info[3].ToString().Utf8Value(), static_cast<uint16_t>(info[4].ToNumber().Int32Value()),
                         &local);
  }
  if (error < 0) return number(info, error);
  int32_t flags = info[5].ToNumber().Int32Value();
  DialOptions options;
  options.local = bound ? &local : nullptr;
  options.no_delay = (flags & abi::kOpenNoDelay) != 0;
  options.fast_open = (flags & abi::kOpenFastOpen) != 0;
  options.low_water_bytes = info[6].ToNumber().Uint32Value();
  env.reactor().update_clock();
  int index = env.reactor().dial(address, options);
  env.schedule();
  return number(info, index);
}

Napi::Value address(const Napi::CallbackInfo& info) {
  Env& env = env_of(info);
  if (!env.is_open()) return info.Env().Undefined();
  CompactAddress ip;
  SocketAddress full;
  int32_t index = info[0].ToNumber().Int32Value();
  if (!env.reactor().address(index, info[1].ToNumber().Int32Value(), &ip, &full)) return info.Env().Undefined();
  Napi::Array out = Napi::Array::New(info.Env(), 3);
  if (ip.family == AF_UNIX) {
    out.Set(0u, "unix");
    std::string_view path = unix_path(full);
    out.Set(1u, Napi::String::New(info.Env(), path.data(), path.size()));
    out.Set(2u, 0);
    return out;
  }
  char text[kIpTextBytes];
  format_ip(ip, text);
  out.Set(0u, ip.family == AF_INET6 ? "IPv6" : "IPv4");
  out.Set(1u, static_cast<const char*>(text));
  out.Set(2u, static_cast<int>(ip.port));
  return out;
}

Napi::Value set_option(const Napi::CallbackInfo& info) {
  Env& env = env_of(info);
  if (!env.is_open()) return number(info, -EBADF);
  return number(info, env.reactor().set_option(info[0].ToNumber().Int32Value(), info[1].ToNumber().Int32Value(),
                                               info[2].ToNumber().Int32Value()));
}

Napi::Value pin(const Napi::CallbackInfo& info) {
  uint32_t id = env_of(info).pin(info[0]);
  return number(info, id == kNoIndex ? -1 : static_cast<int64_t>(id));
}

Napi::Value set_scope(const Napi::CallbackInfo& info) {
  Env& env = env_of(info);
  return Napi::Boolean::New(info.Env(), env.is_open() && env.set_scope(info[0]));
}

Napi::Value set_ref(const Napi::CallbackInfo& info) {
  Env& env = env_of(info);
  if (env.is_open()) env.driver().set_ref(info[0].ToBoolean());
  return info.Env().Undefined();
}

Napi::Value set_budget(const Napi::CallbackInfo& info) {
  Env& env = env_of(info);
  if (!env.is_open()) return info.Env().Undefined();
  env.reactor().pool().set_budget_bytes(static_cast<uint64_t>(info[0].ToNumber().DoubleValue()));
  env.schedule();
  return info.Env().Undefined();
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  // Deleted by Node when the environment has ended, after the teardown hook has run.
  env.SetInstanceData(new Env(env));
  raise_open_files_limit();
  exports.Set("abiVersion", Napi::Number::New(env, abi::kAbiVersion));
  exports.Set("open", Napi::Function::New(env, open, "open"));
  exports.Set("flush", Napi::Function::New(env, flush, "flush"));
  exports.Set("listen", Napi::Function::New(env, listen, "listen"));
  exports.Set("dial", Napi::Function::New(env, dial, "dial"));
  exports.Set("address", Napi::Function::New(env, address, "address"));
  exports.Set("setOption", Napi::Function::New(env, set_option, "setOption"));
  exports.Set("pin", Napi::Function::New(env, pin, "pin"));
  exports.Set("setScope", Napi::Function::New(env, set_scope, "setScope"));
  exports.Set("setRef", Napi::Function::New(env, set_ref, "setRef"));
  exports.Set("setBudget", Napi::Function::New(env, set_budget, "setBudget"));
  return exports;
}

NODE_API_MODULE(edgewire, init)

}  // namespace
}  // namespace edgewire
