// One per environment (the main thread, each worker): the reactor's host in Node. Owns the shared memory, calls
// JavaScript, and ends with its environment. There are no process-wide globals.
#pragma once

#include <napi.h>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/reactor.h"
#include "node/driver.h"

namespace edgewire {

class Env final : public Host {
 public:
  explicit Env(napi_env env) : env_(env) {}
  ~Env() override = default;

  // `hooks` has dispatch(): void, slabs: Uint8Array[] and opened: [] (ours to clear), and gets the properties
  // doubles and words (the connection tables) now and whenever they grow. Returns the shared memory, or -errno with
  // nothing opened: -ENOTSUP for a driver that this process cannot have. It may be tried again.
  // `driver`: abi::kDriver...; the shared memory's property `driver` says which it has become.
  Napi::Value open(Napi::Object hooks, uint64_t budget_bytes, bool debug, int32_t driver);
  bool is_open() const noexcept { return reactor_ != nullptr && !closing_; }
  Reactor& reactor() noexcept { return *reactor_; }
  Driver& driver() noexcept { return *driver_; }
  // Tells the driver that something has changed between turns; within one it looks at the end anyway.
  void schedule() noexcept {
    if (!in_turn_) driver_->schedule();
  }

  // From now on JavaScript is called in the async context of this very call, for which the object `resource` stands
  // (async_hooks); anything but an object: in none. False where there is no such thing: in Bun and Deno.
  bool set_scope(Napi::Value resource) noexcept;
  // Keeps `bytes` alive until they are sent; kNoIndex when that fails.
  uint32_t pin(Napi::Value bytes) noexcept;

  // Host
  void dispatch() noexcept override;
  uint8_t* acquire_slab(uint32_t index) noexcept override;
  void release_slab(uint32_t index) noexcept override;
  bool grow_rows(uint32_t rows, double** doubles, int32_t** words) noexcept override;
  const uint8_t* pinned(uint32_t id, size_t* bytes) noexcept override;
  void unpin(uint32_t id) noexcept override;

 private:
  void run_turn(Look look) noexcept;
  int open_driver(int32_t wanted, int32_t* opened) noexcept;
  void* shared_array(Napi::Object into, const char* name, size_t bytes);
  Napi::Value fail(int error);
  static void on_teardown(napi_async_cleanup_hook_handle handle, void* env);
  static void on_teardown_at_once(void* env);
  void tear_down(Driver::Closed closed) noexcept;
  void leave_context(napi_async_context context) noexcept;

  napi_env env_;
  std::unique_ptr<Reactor> reactor_;
  std::unique_ptr<Driver> driver_;
  Napi::ObjectReference hooks_;
  Napi::FunctionReference dispatch_;
  Napi::ObjectReference slabs_;
  Napi::ObjectReference opened_slabs_;
  // The scope of dispatch(): without an async context, the resource is just its `this`.
  Napi::ObjectReference resource_;
  napi_async_context async_context_ = nullptr;
  napi_async_context left_context_ = nullptr;  // was the scope's when the dispatch began that is under way
  napi_async_cleanup_hook_handle teardown_ = nullptr;
  std::vector<napi_ref> pins_;
  std::vector<uint32_t> pins_free_;
  double* doubles_ = nullptr;
  int32_t* words_ = nullptr;
  int32_t* control_ = nullptr;
  uint32_t rows_ = 0;
  bool closing_ = false;
  bool in_turn_ = false;
  bool in_dispatch_ = false;
  bool has_scopes_ = false;
};

}  // namespace edgewire
