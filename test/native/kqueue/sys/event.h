// macOS's <sys/event.h>, as far as the poller and its tests need it: the same names, numbers and layout (kqueue(2), and
// xnu/bsd/sys/event.h), for a kqueue that lives on top of epoll (kqueue.cc). For tests on Linux only.
#pragma once

#include <cstdint>
#include <ctime>

#define EVFILT_READ (-1)
#define EVFILT_WRITE (-2)
#define EVFILT_USER (-10)

#define EV_ADD 0x0001
#define EV_DELETE 0x0002
#define EV_CLEAR 0x0020
#define EV_RECEIPT 0x0040
#define EV_ERROR 0x4000
#define EV_EOF 0x8000

#define NOTE_TRIGGER 0x01000000
#define NOTE_OOB 0x00000002

#pragma pack(4)
struct kevent {
  uintptr_t ident;
  int16_t filter;
  uint16_t flags;
  uint32_t fflags;
  intptr_t data;
  void* udata;
};
#pragma pack()

#define EV_SET(event, a, b, c, d, e, f) \
  do {                                  \
    struct kevent* set_ = (event);      \
    set_->ident = (a);                  \
    set_->filter = (b);                 \
    set_->flags = (c);                  \
    set_->fflags = (d);                 \
    set_->data = (e);                   \
    set_->udata = (f);                  \
  } while (0)

extern "C" {
int kqueue();
int kevent(int queue, const struct kevent* changes, int change_count, struct kevent* events, int capacity,
           const struct timespec* timeout);
}
