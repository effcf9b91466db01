#include "load_echo.h"

#include <algorithm>
#include <cinttypes>

namespace edgewire::bench {

EchoClients::EchoClients(const Options& options, Trial& trial)
    : options_(options),
      trial_(trial),
      size_(options.size),
      depth_(static_cast<uint64_t>(options.depth)),
      dialer_(options),
      clients_(static_cast<size_t>(options.connections)),
      starts_(clients_.size() * depth_),
      buffer_(Pattern::kWindow) {
  raiseFdLimit(options.connections);
}

void EchoClients::openAll() {
  while (dialed_ < std::min(options_.connections, kMaxOpening)) openNext();
  while (opened_ < options_.connections) {
    poll(kPollMs);
    trial_.checkProgress(nowNs());
  }
}

void EchoClients::openNext() {
  const auto index = static_cast<uint32_t>(dialed_++);
  clients_[index].fd = dialer_.dial();
  poller_.add(clients_[index].fd, index);
}

void EchoClients::run() {
  phase_ = Phase::running;
  trial_.begin();
  for (uint32_t index = 0; index < clients_.size(); index++) send(index);
  while (trial_.running(nowNs())) poll(kPollMs);
}

void EchoClients::drain() {
  phase_ = Phase::draining;
  while (inFlight_ > 0) {
    poll(kPollMs);
    trial_.checkProgress(nowNs());
  }
}

void EchoClients::poll(int timeoutMs) {
  poller_.poll(timeoutMs, [this](uint64_t token, uint32_t events) { onEvent(static_cast<uint32_t>(token), events); });
}

void EchoClients::onEvent(uint32_t index, uint32_t events) {
  Client& client = clients_[index];
  if (client.sent == 0) connected(client, index);
  if (events & EPOLLOUT) client.blocked = false;
  const bool hangup = (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
  if ((events & EPOLLIN) || hangup) receive(index, hangup);
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
           client.sent);
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
  if (length > client.sent - client.received) {
    fail("connection %u: the server sent more than it was sent, after %" PRIu64 " bytes", index, client.received);
  }
  const size_t good = pattern_.mismatch(index, client.received, buffer_.data(), length);
  if (good != length) {
    const uint64_t position = client.received + good;
    fail("connection %u: byte %" PRIu64 " is 0x%02x instead of 0x%02x", index, position, buffer_[good],
         *pattern_.at(index, position));
  }
  const uint64_t firstOpen = client.received / size_;
  client.received += length;
  inFlight_ -= length;
  const uint64_t firstStillOpen = client.received / size_;
  if (firstOpen == firstStillOpen) return;
  const uint64_t now = nowNs();
  for (uint64_t message = firstOpen; message < firstStillOpen; message++) trial_.complete(startOf(index, message), now);
  if (phase_ == Phase::opening) {
    opened_++;
    if (dialed_ < options_.connections) openNext();
  }
}

// The position in the stream up to which a connection may send now.
uint64_t EchoClients::sendLimit(const Client& client) const {
  switch (phase_) {
    case Phase::opening: return size_;
    case Phase::running: return (client.received / size_ + depth_) * size_;
    case Phase::draining: return (client.sent + size_ - 1) / size_ * size_;  // a message that was begun is finished
  }
  return 0;
}

// Messages that may be sent at the same time go out in one piece, as a client that pipelines would send them.
void EchoClients::send(uint32_t index) {
  Client& client = clients_[index];
  const uint64_t limit = sendLimit(client);
  while (!client.blocked && client.sent < limit) {
    const size_t length = std::min<uint64_t>(limit - client.sent, Pattern::kWindow);
    const uint64_t now = nowNs();
    const ssize_t put = ::send(client.fd.get(), pattern_.at(index, client.sent), length, MSG_NOSIGNAL);
    if (put < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) fail("connection %u: send: %s", index, std::strerror(errno));
      client.blocked = true;
      return;
    }
    // The messages whose first byte has just been taken.
    const uint64_t begin = (client.sent + size_ - 1) / size_;
    client.sent += static_cast<uint64_t>(put);
    inFlight_ += static_cast<uint64_t>(put);
    for (uint64_t message = begin; message * size_ < client.sent; message++) startOf(index, message) = now;
    client.blocked = static_cast<size_t>(put) < length;
  }
}

int runEcho(const Options& options) {
  Trial trial(options);
  EchoClients clients(options, trial);
  clients.openAll();
  clients.run();
  clients.drain();
  trial.printJson();
  return 0;
}

}  // namespace edgewire::bench
