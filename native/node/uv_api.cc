#include "node/uv_api.h"

#include <dlfcn.h>

namespace edgewire {
namespace {

template <typename Function>
bool look_up(const char* name, Function* function) noexcept {
  *function = reinterpret_cast<Function>(::dlsym(RTLD_DEFAULT, name));
  return *function != nullptr;
}

bool look_up_all(UvApi* uv) noexcept {
  return look_up("uv_async_init", &uv->async_init) && look_up("uv_async_send", &uv->async_send) &&
         look_up("uv_backend_fd", &uv->backend_fd) && look_up("uv_backend_timeout", &uv->backend_timeout) &&
         look_up("uv_close", &uv->close) && look_up("uv_idle_init", &uv->idle_init) &&
         look_up("uv_idle_start", &uv->idle_start) && look_up("uv_idle_stop", &uv->idle_stop) &&
         look_up("uv_metrics_info", &uv->metrics_info) && look_up("uv_now", &uv->now) &&
         look_up("uv_poll_init", &uv->poll_init) && look_up("uv_poll_start", &uv->poll_start) &&
         look_up("uv_poll_stop", &uv->poll_stop) && look_up("uv_prepare_init", &uv->prepare_init) &&
         look_up("uv_prepare_start", &uv->prepare_start) && look_up("uv_prepare_stop", &uv->prepare_stop) &&
         look_up("uv_ref", &uv->ref) && look_up("uv_timer_init", &uv->timer_init) &&
         look_up("uv_timer_start", &uv->timer_start) && look_up("uv_timer_stop", &uv->timer_stop) &&
         look_up("uv_unref", &uv->unref) && look_up("uv_update_time", &uv->update_time) &&
         look_up("uv_version", &uv->version) && look_up("napi_get_uv_event_loop", &uv->event_loop);
}

}  // namespace

const UvApi* UvApi::find() noexcept {
  static UvApi uv;
  static const bool complete = look_up_all(&uv);
  return complete ? &uv : nullptr;
}

}  // namespace edgewire
