// libuv's functions as the process has them, looked up by name: an addon that links them does not load in a runtime that
// has none. Its types come from uv.h; they are part of libuv's ABI, which has been stable since 1.0.
#pragma once

#include <node_api.h>
#include <uv.h>

namespace edgewire {

struct UvApi {
  decltype(&uv_async_init) async_init;
  decltype(&uv_async_send) async_send;
  decltype(&uv_backend_fd) backend_fd;
  decltype(&uv_backend_timeout) backend_timeout;
  decltype(&uv_close) close;
  decltype(&uv_idle_init) idle_init;
  decltype(&uv_idle_start) idle_start;
  decltype(&uv_idle_stop) idle_stop;
  decltype(&uv_metrics_info) metrics_info;
  decltype(&uv_now) now;
  decltype(&uv_poll_init) poll_init;
  decltype(&uv_poll_start) poll_start;
  decltype(&uv_poll_stop) poll_stop;
  decltype(&uv_prepare_init) prepare_init;
  decltype(&uv_prepare_start) prepare_start;
  decltype(&uv_prepare_stop) prepare_stop;
  decltype(&uv_ref) ref;
  decltype(&uv_timer_init) timer_init;
  decltype(&uv_timer_start) timer_start;
  decltype(&uv_timer_stop) timer_stop;
  decltype(&uv_unref) unref;
  decltype(&uv_update_time) update_time;
  decltype(&uv_version) version;
  decltype(&napi_get_uv_event_loop) event_loop;

  // nullptr when any of them is missing.
  static const UvApi* find() noexcept;
};

}  // namespace edgewire
