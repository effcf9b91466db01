#include "load_echo.h"

#include <algorithm>
#include <cinttypes>

namespace edgewire::bench {

EchoClients::EchoClients(const Options& options, Trial& trial)
    : options_(options),
      trial_(trial),
      protocol_(options),
      requestSize_(protocol_.requestSize()),
      depth_(static_cast<uint64_t>(options.depth)),
      atRate_(options.rate != 0),
      dialer_(options),
      schedule_(options.rate, static_cast<uint32_t>(options.connections)),
      clients_(static_cast<size_t>(options.connections + options.idle + options.stalled)),
      starts_(atRate_ ? 0 : static_cast<size_t>(options.connections) * depth_),
      buffer_(Pattern::kWindow) {
  raiseFdLimit(static_cast<int>(clients_.size()));
}

EchoClients::Role EchoClients::roleOf(uint32_t index) const {
  const auto active = static_cast<uint32_t>(options_.connections);
  if (index < active) return Role::active;
  return index < active + static_cast<uint32_t>(options_.idle) ? Role::idle : Role::stalled;
}

void EchoClients::openAll() {
  while (dialed_ < std::min<size_t>(clients_.size(), kMaxOpening)) openNext();
  while (opened_ < clients_.size()) {
    poll(kPollMs);
    trial_.checkProgress(nowNs());
  }
}

void EchoClients::openNext() {
  const uint32_t index = dialed_++;
  clients_[index].fd = dialer_.dial(/*small=*/roleOf(index) == Role::stalled);
  poller_.add(clients_[index].fd, index);
}

void EchoClients::run() {
  phase_ = Phase::running;
  fillStalled();
  trial_.begin();
  for (uint32_t index = 0; index < static_cast<uint32_t>(options_.connections); index++) send(index);
  while (trial_.running(nowNs())) poll(kPollMs);
}

void EchoClients::drain() {
  phase_ = Phase::draining;
  drainStalled();
  while (inFlight_ > 0) {
    poll(kPollMs);
    trial_.checkProgress(nowNs());
  }
}

// Until the server takes no more for a while: what is measured is a server that has stalled connections, not one that
// is getting them.
void EchoClients::fillStalled() {
  constexpr uint64_t kQuietNs = 200'000'000;
  const auto first = static_cast<uint32_t>(options_.connections + options_.idle);
  for (uint32_t index = first; index < clients_.size(); index++) send(index);
  const auto taken = [&] {
    uint64_t bytes = 0;
    for (uint32_t index = first; index < clients_.size(); index++) bytes += clients_[index].sent;
    return bytes;
  };
  uint64_t before = taken();
  for (uint64_t changed = nowNs(); options_.stalled != 0 && nowNs() - changed < kQuietNs;) {
    poll(kPollMs);
    const uint64_t now = taken();
    if (now != before) changed = nowNs();
    before = now;
  }
}

// The edges of all that has arrived are gone.
void EchoClients::drainStalled() {
  for (uint32_t index = 0; index < clients_.size(); index++) {
    if (roleOf(index) != Role::stalled) continue;
    receive(index, /*untilEmpty=*/true);
    send(index);
  }
}

void EchoClients::poll(int timeoutMs) {
  poller_.poll(timeoutMs, [this](uint64_t token, uint32_t events) {
    if (token != Alarm::kToken) onEvent(static_cast<uint32_t>(token), events);
  });
}

void EchoClients::onEvent(uint32_t index, uint32_t events) {
  Client& client = clients_[index];
  if (client.sent == 0) connected(client, index);
  if (events & EPOLLOUT) client.blocked = false;
  const bool hangup = (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
  if (phase_ == Phase::running && roleOf(index) == Role::stalled) {
    if (hangup) fail("connection %u: the server closed it because it does not read", index);
  } else if ((events & EPOLLIN) || hangup) {
    receive(index, hangup);
  }
  send(index);
}

void EchoClients::connected(const Client& client, uint32_t index) const {
  int problem = 0;
  socklen_t length = sizeof problem;
  getsockopt(client.fd.get(), SOL_SOCKET, SO_ERROR, &problem, &length);
  if (problem != 0) fail("connection %u: connect: %s", index, std::strerror(problem));
}

// A short read has emptied the socket; only a hangup that has been reported already makes no further edge.
void EchoClients::receive(uint32_t index, bool untilEmpty) {
  Client& client = clients_[index];
  for (;;) {
    const ssize_t got = recv(client.fd.get(), buffer_.data(), buffer_.size(), 0);
    if (got > 0) {
      accountFor(index, static_cast<size_t>(got));
      if (static_cast<size_t>(got) < buffer_.size() && !untilEmpty) return;
    } else if (got == 0) {
      fail("connection %u: the server closed it after %" PRIu64 " of %" PRIu64 " bytes", index, client.received,
           protocol_.repliesTo(client.sent));
    } else if (errno == EAGAIN) {
      return;
    } else if (errno != EINTR) {
      fail("connection %u: receive: %s", index, std::strerror(errno));
    }
  }
}

// Checks what lies in the buffer, and completes the messages whose last byte is among it.
void EchoClients::accountFor(uint32_t index, size_t length) {
  Client& client = clients_[index];
  const Pattern& replies = protocol_.replies();
  if (length > protocol_.repliesTo(client.sent) - client.received) {
    fail("connection %u: the server sent more than it was asked for, after %" PRIu64 " bytes", index, client.received);
  }
  const size_t good = replies.mismatch(index, client.received, buffer_.data(), length);
  if (good != length) {
    const uint64_t position = client.received + good;
    fail("connection %u: byte %" PRIu64 " is 0x%02x instead of 0x%02x", index, position, buffer_[good],
         *replies.at(index, position));
  }
  const uint64_t firstOpen = client.received / protocol_.replySize();
  client.received += length;
  const uint64_t firstStillOpen = client.received / protocol_.replySize();
  if (firstOpen == firstStillOpen) return;
  const uint64_t now = nowNs();
  for (uint64_t message = firstOpen; message < firstStillOpen; message++) complete(index, message, now);
}

void EchoClients::complete(uint32_t index, uint64_t message, uint64_t now) {
  inFlight_--;
  if (phase_ == Phase::opening) {
    opened_++;
    trial_.progress(now);
    if (dialed_ < clients_.size()) openNext();
  } else if (roleOf(index) != Role::active) {
    trial_.progress(now);
  } else {
    const uint64_t started = atRate_ ? schedule_.instantOfMessage(index, message) : startOf(index, message);
    trial_.complete(started, now, options_.size);
  }
}

// The position in its stream up to which a connection may send now.
uint64_t EchoClients::sendLimit(const Client& client, uint32_t index) const {
  const Role role = roleOf(index);
  if (phase_ == Phase::opening || role == Role::idle) return requestSize_;
  if (role == Role::active && atRate_) return schedule_.dueOf(index) * requestSize_;
  if (phase_ == Phase::draining) {
    return (client.sent + requestSize_ - 1) / requestSize_ * requestSize_;  // a message that was begun is finished
  }
  if (role == Role::stalled) return kStalledMostBytes;
  return (client.received / protocol_.replySize() + depth_) * requestSize_;
}

// Messages that may be sent at the same time go out in one piece, as a client that pipelines would send them.
void EchoClients::send(uint32_t index) {
  Client& client = clients_[index];
  const bool timed = phase_ != Phase::opening && !atRate_ && roleOf(index) == Role::active;
  const uint64_t limit = sendLimit(client, index);
  while (!client.blocked && client.sent < limit) {
    const size_t length = std::min<uint64_t>(limit - client.sent, Pattern::kWindow);
    const uint64_t now = timed ? nowNs() : 0;
    const ssize_t put = ::send(client.fd.get(), protocol_.requests().at(index, client.sent), length, MSG_NOSIGNAL);
    if (put < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) fail("connection %u: send: %s", index, std::strerror(errno));
      client.blocked = true;
      return;
    }
    // The messages whose first byte has just been taken.
    uint64_t message = (client.sent + requestSize_ - 1) / requestSize_;
    client.sent += static_cast<uint64_t>(put);
    for (; message * requestSize_ < client.sent; message++) {
      inFlight_++;
      if (timed) startOf(index, message) = now;
    }
    client.blocked = static_cast<size_t>(put) < length;
  }
  if (client.sent >= kStalledMostBytes && phase_ == Phase::running && roleOf(index) == Role::stalled) {
    fail("connection %u: the server has taken %" PRIu64 " bytes and goes on, though nobody reads its answers", index,
         client.sent);
  }
}

int runEcho(const Options& options) {
  Trial trial(options);
  EchoClients clients(options, trial);
  clients.openAll();
  if (options.rate != 0) {
    clients.runAtRate();
    clients.drainAtRate();
  } else {
    clients.run();
    clients.drain();
  }
  trial.printJson();
  return 0;
}

}  // namespace edgewire::bench
