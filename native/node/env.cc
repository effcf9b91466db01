#include "node/env.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include "core/sys.h"

namespace edgewire {
namespace {

// The allocator puts its own header in front of large blocks, so they begin 16 bytes behind a page. On processors that copy
// with `rep movsb` (the kernel does) and whose microcode compares only the low 12 bits of the two addresses, AMD's Zen
// above all, a copy to a place a little behind its source, counted in those bits, costs up to eight times as much. What a
// peer sends in bulk lies at the beginning of pages; where reads go to the beginning of pages, too, it is not behind.
constexpr size_t kSlabAlignment = 4096;

// Node-API calls below can fail only when the environment is going away or memory is gone; both are answered by
// giving the caller nothing, and an exception that such a call may leave behind is dropped.
void drop_exception(napi_env env) noexcept {
  bool pending = false;
  napi_value ignored;
  if (napi_is_exception_pending(env, &pending) == napi_ok && pending) {
    napi_get_and_clear_last_exception(env, &ignored);
  }
}

// `uv` nullptr: no libuv here, and the driver is the one that needs none.
std::unique_ptr<Driver> make_driver(int32_t driver, const UvApi* uv) {
  if (driver == abi::kDriverUvPoll) return make_uv_poll_driver(*uv);
  if (driver == abi::kDriverPrepare) return make_prepare_driver(*uv);
  return make_waiter_driver(uv);
}

}  // namespace

void* Env::shared_array(Napi::Object into, const char* name, size_t bytes) {
  void* data = nullptr;
  napi_value buffer;
  if (napi_create_arraybuffer(env_, bytes, &data, &buffer) != napi_ok) return nullptr;
  return napi_set_named_property(env_, into, name, buffer) == napi_ok ? data : nullptr;
}

// Gives everything back, so that a later open() begins anew: what failed may have been a moment without descriptors.
Napi::Value Env::fail(int error) {
  drop_exception(env_);
  if (driver_ != nullptr) {
    driver_->stop();
    // libuv lets go of its handles later, so the driver outlives its place here.
    Driver* driver = driver_.release();
    driver->close([](void* closed) { delete static_cast<Driver*>(closed); }, driver);
  }
  reactor_.reset();
  return Napi::Number::New(Napi::Env(env_), error);
}

Napi::Value Env::open(Napi::Object hooks, uint64_t budget_bytes, bool debug, int32_t driver) {
  Napi::Env env(env_);
  if (driver == abi::kDriverPrepare && (UvApi::find() == nullptr || !suits_prepare_driver(*UvApi::find()))) {
    return Napi::Number::New(env, -ENOTSUP);
  }
  hooks_ = Napi::Persistent(hooks);
  dispatch_ = Napi::Persistent(hooks.Get("dispatch").As<Napi::Function>());
  slabs_ = Napi::Persistent(hooks.Get("slabs").As<Napi::Object>());
  opened_slabs_ = Napi::Persistent(hooks.Get("opened").As<Napi::Object>());
  Napi::Object shared = Napi::Object::New(env);
  SharedMemory memory{};
  constexpr size_t kRecordBytes = sizeof(Record);
  memory.control = static_cast<int32_t*>(shared_array(shared, "control", abi::kControlWords * sizeof(int32_t)));
  memory.metrics = static_cast<double*>(shared_array(shared, "metrics", abi::kMetricWords * sizeof(double)));
  memory.completions =
      static_cast<Record*>(shared_array(shared, "completions", abi::kCompletionCapacity * kRecordBytes));
  memory.commands = static_cast<Record*>(shared_array(shared, "commands", abi::kCommandCapacity * kRecordBytes));
  memory.arena = static_cast<uint8_t*>(shared_array(shared, "arena", abi::kArenaBytes));
  bool complete = memory.control != nullptr && memory.metrics != nullptr && memory.completions != nullptr &&
                  memory.commands != nullptr && memory.arena != nullptr;
  if (!complete) return fail(-ENOMEM);
  control_ = memory.control;
  // The views must live as long as the reactor: the hooks object, which we hold, holds them.
  hooks.Set("shared", shared);

  reactor_ = std::make_unique<Reactor>(*this, budget_bytes);
  reactor_->pool().set_poison(debug);
  int error = reactor_->open(memory);
  if (error < 0) return fail(error);
  error = open_driver(driver, &driver);
  if (error < 0) return fail(error);
  driver_->schedule();
  shared.Set("driver", Napi::Number::New(env, driver));

  resource_ = Napi::Persistent(Napi::Object::New(env));
  if (driver == abi::kDriverWaiterTsfn) {
    napi_add_env_cleanup_hook(env_, on_teardown_at_once, this);
    return shared;
  }
  has_scopes_ = true;
  napi_add_async_cleanup_hook(env_, on_teardown, this, &teardown_);
  return shared;
}

// A process whose libuv cannot be found gets the driver that needs none.
int Env::open_driver(int32_t wanted, int32_t* opened) noexcept {
  const UvApi* uv = wanted == abi::kDriverWaiterTsfn ? nullptr : UvApi::find();
  uv_loop_t* loop = nullptr;
  if (uv != nullptr && uv->event_loop(env_, &loop) != napi_ok) uv = nullptr;
  *opened = uv != nullptr ? wanted : abi::kDriverWaiterTsfn;
  driver_ = make_driver(*opened, uv);
  auto run = [](void* self, Look look) { static_cast<Env*>(self)->run_turn(look); };
  return driver_->open({env_, loop, reactor_.get(), run, this});
}

// Runs when the environment ends, possibly in the middle of a dispatch (process.exit() in a handler).
void Env::on_teardown(napi_async_cleanup_hook_handle, void* data) {
  auto* self = static_cast<Env*>(data);
  self->tear_down([](void* context) {
    auto* env = static_cast<Env*>(context);
    env->leave_context(env->left_context_);
    env->leave_context(env->async_context_);
    napi_remove_async_cleanup_hook(env->teardown_);
  });
}

// For a driver that closes at once, in runtimes that are not Node: Deno dies of the two calls above.
void Env::on_teardown_at_once(void* data) {
  static_cast<Env*>(data)->tear_down([](void*) {});
}

void Env::tear_down(Driver::Closed closed) noexcept {
  closing_ = true;
  driver_->stop();
  reactor_->close();
  driver_->close(closed, this);
}

void Env::run_turn(Look look) noexcept {
  if (closing_) return;
  // No handle scope here: what makes handles (dispatch(), a new slab) opens its own, and most turns make none besides.
  in_turn_ = true;
  reactor_->turn(look);
  in_turn_ = false;
  if (!closing_) driver_->schedule();
}

void Env::dispatch() noexcept {
  if (closing_) return;
  Napi::HandleScope scope(env_);
  napi_value result;
  in_dispatch_ = true;
  napi_status status =
      napi_make_callback(env_, async_context_, resource_.Value(), dispatch_.Value(), 0, nullptr, &result);
  in_dispatch_ = false;
  if (left_context_ != nullptr && !closing_) leave_context(std::exchange(left_context_, nullptr));
  if (status == napi_ok) return;
  // lib/loop.ts lets nothing through: this came from a tick or a microtask, which Node reports as uncaught.
  bool pending = false;
  napi_value exception;
  if (napi_is_exception_pending(env_, &pending) != napi_ok || !pending) return;
  if (napi_get_and_clear_last_exception(env_, &exception) == napi_ok) napi_fatal_exception(env_, exception);
}

bool Env::set_scope(Napi::Value resource) noexcept {
  if (closing_ || !has_scopes_) return false;
  Napi::HandleScope scope(env_);
  const bool named = resource.IsObject();
  napi_value name;
  napi_async_context context = nullptr;
  if (named && (napi_create_string_utf8(env_, "edgewire", NAPI_AUTO_LENGTH, &name) != napi_ok ||
                napi_async_init(env_, resource, name, &context) != napi_ok)) {
    return false;
  }
  napi_async_context before = std::exchange(async_context_, context);
  resource_ = Napi::Persistent(named ? resource.As<Napi::Object>() : Napi::Object::New(env_));
  // The context of a dispatch that is under way is left when it returns: once, however often the scope changes in it.
  if (in_dispatch_ && left_context_ == nullptr) {
    left_context_ = before;
  } else {
    leave_context(before);
  }
  return true;
}

void Env::leave_context(napi_async_context context) noexcept {
  if (context != nullptr) napi_async_destroy(env_, context);
}

// ---- memory ---------------------------------------------------------------------------------------------------------

uint8_t* Env::acquire_slab(uint32_t index) noexcept {
  if (closing_) return nullptr;
  Napi::HandleScope scope(env_);
  void* data = nullptr;
  napi_value buffer;
  napi_value slab;
  if (napi_create_arraybuffer(env_, kSlabBytes + kSlabAlignment, &data, &buffer) != napi_ok) {
    drop_exception(env_);
    return nullptr;
  }
  const size_t offset = -reinterpret_cast<uintptr_t>(data) % kSlabAlignment;
  if (napi_create_typedarray(env_, napi_uint8_array, kSlabBytes, buffer, offset, &slab) != napi_ok ||
      napi_set_element(env_, slabs_.Value(), index, slab) != napi_ok) {
    drop_exception(env_);
    return nullptr;
  }
  return static_cast<uint8_t*>(data) + offset;
}

// The memory goes when the last view of it does. Its pages go now: the allocator may keep such blocks for itself.
void Env::release_slab(uint32_t index) noexcept {
  if (closing_) return;
  Napi::HandleScope scope(env_);
  napi_value undefined;
  napi_value slab;
  napi_typedarray_type type;
  void* data = nullptr;
  size_t bytes = 0;
  if (napi_get_element(env_, slabs_.Value(), index, &slab) == napi_ok &&
      napi_get_typedarray_info(env_, slab, &type, &bytes, &data, nullptr, nullptr) == napi_ok && data != nullptr) {
    discard_pages(data, bytes);
  }
  if (napi_get_undefined(env_, &undefined) != napi_ok) return;
  napi_set_element(env_, slabs_.Value(), index, undefined);
  napi_set_element(env_, opened_slabs_.Value(), index, undefined);
}

bool Env::grow_rows(uint32_t rows, double** doubles, int32_t** words) noexcept {
  if (closing_) return false;
  Napi::HandleScope scope(env_);
  Napi::Object hooks = hooks_.Value();
  size_t double_row = abi::kRowWords * sizeof(double);
  size_t word_row = abi::kInterestWords * sizeof(int32_t);
  auto* new_doubles = static_cast<double*>(shared_array(hooks, "doubles", rows * double_row));
  auto* new_words =
      new_doubles == nullptr ? nullptr : static_cast<int32_t*>(shared_array(hooks, "words", rows * word_row));
  if (new_words == nullptr) {
    drop_exception(env_);
    return false;
  }
  if (rows_ > 0) {
    std::memcpy(new_doubles, doubles_, rows_ * double_row);
    std::memcpy(new_words, words_, rows_ * word_row);
  }
  *doubles = doubles_ = new_doubles;
  *words = words_ = new_words;
  rows_ = rows;
  control_[abi::kControlTableRows] = static_cast<int32_t>(rows);
  return true;
}

// ---- buffers sent by reference --------------------------------------------------------------------------------------

uint32_t Env::pin(Napi::Value bytes) noexcept {
  napi_ref reference;
  if (napi_create_reference(env_, bytes, 1, &reference) != napi_ok) return kNoIndex;
  if (pins_free_.empty()) {
    pins_.push_back(reference);
    return static_cast<uint32_t>(pins_.size() - 1);
  }
  uint32_t id = pins_free_.back();
  pins_free_.pop_back();
  pins_[id] = reference;
  return id;
}

const uint8_t* Env::pinned(uint32_t id, size_t* bytes) noexcept {
  if (closing_ || id >= pins_.size() || pins_[id] == nullptr) return nullptr;
  Napi::HandleScope scope(env_);
  napi_value value;
  napi_typedarray_type type;
  void* data = nullptr;
  if (napi_get_reference_value(env_, pins_[id], &value) != napi_ok || value == nullptr) return nullptr;
  napi_status status = napi_get_typedarray_info(env_, value, &type, bytes, &data, nullptr, nullptr);
  if (status != napi_ok || type != napi_uint8_array || *bytes == 0) return nullptr;
  return static_cast<const uint8_t*>(data);
}

void Env::unpin(uint32_t id) noexcept {
  if (id >= pins_.size() || pins_[id] == nullptr) return;
  if (!closing_) napi_delete_reference(env_, pins_[id]);
  pins_[id] = nullptr;
  pins_free_.push_back(id);
}

}  // namespace edgewire
