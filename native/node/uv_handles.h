// The libuv handles of a driver. libuv closes each by itself, later, and the memory of all must stay until the last one
// is closed; some runtimes close at once. The driver hears of it once.
#pragma once

#include "core/check.h"
#include "node/uv_api.h"

namespace edgewire {

class UvHandles {
 public:
  using Closed = void (*)(void* context);

  explicit UvHandles(const UvApi& uv) noexcept : uv_(uv) {}
  UvHandles(const UvHandles&) = delete;
  UvHandles& operator=(const UvHandles&) = delete;

  // One that libuv has initialised, of any type. It does not keep the process alive until the driver says so.
  template <typename Handle>
  void add(Handle* handle, void* data) noexcept {
    EDGEWIRE_CHECK(count_ < kCapacity);
    handle->data = data;
    handles_[count_] = reinterpret_cast<uv_handle_t*>(handle);
    uv_.unref(handles_[count_]);
    count_++;
  }

  // Closes those that were added, which may be none (a driver that failed to open), once. `closed` is called when they
  // are no longer libuv's; if that is at once, it is the last thing that happens here: it may free this object.
  void close(Closed closed, void* context) noexcept {
    closed_ = closed;
    context_ = context;
    open_ = count_;
    if (open_ == 0) return closed(context);
    // All are counted already: none of these calls but the last can be the one that ends with `closed`.
    for (int i = 0, last = count_ - 1; i <= last; i++) {
      handles_[i]->data = this;
      uv_.close(handles_[i], on_closed);
    }
  }

 private:
  static constexpr int kCapacity = 4;

  static void on_closed(uv_handle_t* handle) {
    auto* self = static_cast<UvHandles*>(handle->data);
    if (--self->open_ == 0) self->closed_(self->context_);
  }

  const UvApi& uv_;
  uv_handle_t* handles_[kCapacity] = {};
  int count_ = 0;
  int open_ = 0;  // closing, and not closed yet
  Closed closed_ = nullptr;
  void* context_ = nullptr;
};

}  // namespace edgewire
