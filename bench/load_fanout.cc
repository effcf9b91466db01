// One message to many connections: subscribers that say "S" and are answered with it, and publishers that take turns to
// send a message, which is to reach every subscriber. The next message starts when all have the one before.
//
// All messages together are one stream, the same for all subscribers.
#include <algorithm>
#include <cinttypes>
#include <vector>

#include "load_net.h"
#include "load_pattern.h"
#include "load_stats.h"

namespace edgewire::bench {
namespace {

class Fanout {
 public:
  Fanout(const Options& options, Trial& trial)
      : options_(options),
        trial_(trial),
        size_(options.size),
        dialer_(options),
        subscribers_(static_cast<size_t>(options.connections)),
        publishers_(static_cast<size_t>(options.publishers)),
        buffer_(Pattern::kWindow) {
    raiseFdLimit(options.connections + options.publishers);
    while (!isStreamFit()) stream_++;
  }

  void openAll() {
    while (dialed_ < std::min<size_t>(subscribers_.size(), kMaxOpening)) subscribeNext();
    while (subscribed_ < subscribers_.size()) pollOutsideWindow();
    for (uint32_t index = 0; index < publishers_.size(); index++) {
      publishers_[index].fd = dialer_.dial();
      poller_.add(publishers_[index].fd, subscribers_.size() + index);
    }
    while (connected_ < publishers_.size()) pollOutsideWindow();
  }

  void run() {
    trial_.begin();
    publishNext();
    while (trial_.running(nowNs())) poll();
    stopping_ = true;
    while (missing_ > 0) pollOutsideWindow();
  }

 private:
  struct Subscriber {
    Fd fd;
    bool asked = false;       // has sent its S
    bool subscribed = false;  // has its answer
    uint64_t received = 0;    // bytes of the messages
  };
  struct Publisher {
    Fd fd;
    bool connected = false;
  };
  static constexpr uint8_t kSubscribe = 'S';
  static constexpr size_t kMaxOpening = 64;  // as many as wait in the server's backlog
  static constexpr int kPollMs = 50;

  // A publisher whose first byte is S would become a subscriber.
  bool isStreamFit() const {
    for (uint64_t first = 0; first < publishers_.size(); first++) {
      if (*pattern_.at(stream_, first * size_) == kSubscribe) return false;
    }
    return true;
  }

  void poll() {
    poller_.poll(kPollMs, [this](uint64_t token, uint32_t events) {
      if (token < subscribers_.size()) {
        onSubscriber(static_cast<uint32_t>(token), events);
      } else {
        onPublisher(static_cast<uint32_t>(token - subscribers_.size()), events);
      }
    });
  }

  void pollOutsideWindow() {
    poll();
    trial_.checkProgress(nowNs());
  }

  void subscribeNext() {
    subscribers_[dialed_].fd = dialer_.dial();
    poller_.add(subscribers_[dialed_].fd, dialed_);
    dialed_++;
  }

  void checkConnected(const Fd& fd) const {
    int problem = 0;
    socklen_t length = sizeof problem;
    getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &problem, &length);
    if (problem != 0) fail("connect: %s", std::strerror(problem));
  }

  void onSubscriber(uint32_t index, uint32_t events) {
    Subscriber& subscriber = subscribers_[index];
    if (!subscriber.asked) {
      checkConnected(subscriber.fd);
      if (!(events & EPOLLOUT)) return;
      if (::send(subscriber.fd.get(), &kSubscribe, 1, MSG_NOSIGNAL) != 1) fail("send: %s", std::strerror(errno));
      subscriber.asked = true;
    }
    if (events & ~static_cast<uint32_t>(EPOLLOUT)) receive(index, (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0);
  }

  // A short read has emptied the socket; only a hangup that has been reported already makes no further edge.
  void receive(uint32_t index, bool untilEmpty) {
    for (;;) {
      const ssize_t got = recv(subscribers_[index].fd.get(), buffer_.data(), buffer_.size(), 0);
      if (got > 0) {
        accountFor(index, static_cast<size_t>(got));
        if (static_cast<size_t>(got) < buffer_.size() && !untilEmpty) return;
      } else if (got == 0) {
        fail("subscriber %u: the server closed it after %" PRIu64 " bytes", index, subscribers_[index].received);
      } else if (errno == EAGAIN) {
        return;
      } else if (errno != EINTR) {
        fail("subscriber %u: receive: %s", index, std::strerror(errno));
      }
    }
  }

  void accountFor(uint32_t index, size_t length) {
    Subscriber& subscriber = subscribers_[index];
    if (!subscriber.subscribed) return subscribed(index, length);
    if (length > published_ - subscriber.received) {
      fail("subscriber %u: the server sent more than was published, after %" PRIu64 " bytes", index,
           subscriber.received);
    }
    const size_t good = pattern_.mismatch(stream_, subscriber.received, buffer_.data(), length);
    if (good != length) {
      const uint64_t position = subscriber.received + good;
      fail("subscriber %u: byte %" PRIu64 " is 0x%02x instead of 0x%02x", index, position, buffer_[good],
           *pattern_.at(stream_, position));
    }
    subscriber.received += length;
    // The last byte of a message: part of a large one may have come while its end has not been sent yet.
    if (subscriber.received == (messages_ + 1) * size_ && --missing_ == 0) complete();
  }

  void subscribed(uint32_t index, size_t length) {
    if (length != 1 || buffer_[0] != kSubscribe) fail("subscriber %u: the server's answer is not the byte S", index);
    subscribers_[index].subscribed = true;
    subscribed_++;
    trial_.progress(nowNs());
    if (dialed_ < subscribers_.size()) subscribeNext();
  }

  void complete() {
    trial_.complete(startedNs_, nowNs(), size_ * subscribers_.size());
    messages_++;
    if (!stopping_) publishNext();
  }

  void publishNext() {
    missing_ = subscribers_.size();
    startedNs_ = nowNs();
    publish();
  }

  // Sends what the publisher's socket takes of the message whose turn it is.
  void publish() {
    const uint64_t end = (messages_ + 1) * size_;
    const Publisher& publisher = publishers_[messages_ % publishers_.size()];
    while (published_ < end) {
      const size_t length = std::min<uint64_t>(end - published_, Pattern::kWindow);
      const ssize_t put = ::send(publisher.fd.get(), pattern_.at(stream_, published_), length, MSG_NOSIGNAL);
      if (put >= 0) {
        published_ += static_cast<uint64_t>(put);
      } else if (errno == EAGAIN) {
        return;
      } else if (errno != EINTR) {
        fail("publisher: send: %s", std::strerror(errno));
      }
    }
  }

  void onPublisher(uint32_t index, uint32_t events) {
    Publisher& publisher = publishers_[index];
    if (!publisher.connected) {
      checkConnected(publisher.fd);
      publisher.connected = true;
      connected_++;
    }
    if (events & ~static_cast<uint32_t>(EPOLLOUT)) {
      const ssize_t got = recv(publisher.fd.get(), buffer_.data(), buffer_.size(), 0);
      if (got > 0) fail("publisher %u: the server sent it bytes", index);
      if (got == 0) fail("publisher %u: the server closed it", index);
      if (errno != EAGAIN && errno != EINTR) fail("publisher %u: receive: %s", index, std::strerror(errno));
    }
    if (missing_ > 0 && index == messages_ % publishers_.size()) publish();
  }

  const Options& options_;
  Trial& trial_;
  const uint64_t size_;
  Pattern pattern_;
  uint64_t stream_ = 0;
  Dialer dialer_;
  Poller poller_;
  std::vector<Subscriber> subscribers_;
  std::vector<Publisher> publishers_;
  std::vector<uint8_t> buffer_;
  size_t dialed_ = 0;       // of the subscribers
  size_t subscribed_ = 0;   // of them, have their answer
  size_t connected_ = 0;    // of the publishers
  uint64_t messages_ = 0;   // that all have; also the number of the one that is under way
  uint64_t published_ = 0;  // bytes
  uint64_t startedNs_ = 0;
  size_t missing_ = 0;  // subscribers that lack the end of the message under way
  bool stopping_ = false;
};

}  // namespace

int runFanout(const Options& options) {
  Trial trial(options);
  Fanout fanout(options, trial);
  fanout.openAll();
  fanout.run();
  trial.printJson("\"deliveries\":" + std::to_string(trial.messages() * static_cast<uint64_t>(options.connections)) +
                  ",");
  return 0;
}

}  // namespace edgewire::bench
