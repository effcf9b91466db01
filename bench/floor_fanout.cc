// What one connection sends goes to many: a connection whose first byte is S subscribes, and is answered with S; any
// other publishes. One send for each subscriber.
//
// Backpressure: while any subscriber has a rest, nobody publishes. So each keeps no more than one read's length.
#include <vector>

#include "floor_loop.h"

namespace edgewire::bench {
namespace {

enum class Role : uint8_t { unknown, subscriber, publisher };

struct FanoutConn : Output {
  Role role;
  uint32_t place;  // of a subscriber, in the list of them
};

class Fanout : public FloorLoop<Fanout, FanoutConn> {
 public:
  using FloorLoop::FloorLoop;

  void onEvent(int fd, uint32_t events) {
    if (conns_[fd].role == Role::subscriber) return onSubscriber(fd, events);
    if (!isInput(events)) return;
    if (blocked_ > 0 && conns_[fd].role == Role::publisher) {
      waiting_.push_back(fd);
    } else {
      read(fd, isHangup(events));
    }
  }

  void onEnd(int fd) {
    if (conns_[fd].role == Role::subscriber) unsubscribe(fd);
    close(fd);
  }

  // After the batch, since reading may close a publisher whose own event is still to come in it.
  void afterBatch() {
    while (blocked_ == 0 && !waiting_.empty()) {
      const int fd = waiting_.back();
      waiting_.pop_back();
      // The list may name it twice; the second time it may be gone, or somebody else.
      if (conns_[fd].role == Role::publisher) read(fd, /*untilEmpty=*/true);
    }
  }

 private:
  static constexpr char kSubscribe = 'S';

  void onSubscriber(int fd, uint32_t events) {
    if (conns_[fd].rest != nullptr) {
      const Sent sent = sendRest(fd);
      if (sent == Sent::failed) return onEnd(fd);
      if (sent == Sent::all) blocked_--;
    }
    if (isInput(events)) read(fd, isHangup(events));
  }

  void read(int fd, bool untilEmpty) {
    readAll(fd, untilEmpty, [this, fd](size_t length) {
      FanoutConn& conn = conns_[fd];
      if (conn.role == Role::unknown) {
        if (buffer_[0] == kSubscribe) return subscribe(fd);
        conn.role = Role::publisher;
      }
      // A subscriber has nothing to say.
      return conn.role == Role::subscriber || publish(fd, length);
    });
  }

  bool subscribe(int fd) {
    conns_[fd].role = Role::subscriber;
    conns_[fd].place = static_cast<uint32_t>(subscribers_.size());
    subscribers_.push_back(fd);
    if (sendOrKeep(fd, &kSubscribe, 1) == Sent::kept) blocked_++;
    return true;
  }

  void unsubscribe(int fd) {
    if (conns_[fd].rest != nullptr) blocked_--;
    const int last = subscribers_.back();
    subscribers_[conns_[fd].place] = last;
    conns_[last].place = conns_[fd].place;
    subscribers_.pop_back();
  }

  // A subscriber that is broken is not closed here: its own event will tell, perhaps in this very batch.
  bool publish(int fd, size_t length) {
    for (const int subscriber : subscribers_) {
      if (sendOrKeep(subscriber, buffer_, length) == Sent::kept) blocked_++;
    }
    if (blocked_ == 0) return true;
    waiting_.push_back(fd);
    return false;
  }

  std::vector<int> subscribers_;
  std::vector<int> waiting_;  // publishers that have more to read
  size_t blocked_ = 0;        // subscribers with a rest
};

}  // namespace

void serveFanout(const Config& config) {
  static Fanout server(config);
  server.run();
}

}  // namespace edgewire::bench
