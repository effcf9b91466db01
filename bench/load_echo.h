// Connections that stay open, each a closed loop of messages.
#pragma once

#include <cstdint>
#include <vector>

#include "load_net.h"
#include "load_pattern.h"
#include "load_stats.h"

namespace edgewire::bench {

class EchoClients {
 public:
  EchoClients(const Options& options, Trial& trial);

  // Opens all connections and has each echo one message. That proves that the server has accepted it (the kernel alone
  // completes a connect), and it bounds how many wait in the server's backlog at any time.
  void openAll();
  void run();    // keeps `depth` messages in flight per connection until the trial's window has ended
  void drain();  // starts no more messages, and waits for those in flight
  int pollFd() const { return poller_.fd(); }
  void poll(int timeoutMs);  // handles what has happened: with nothing in flight, that can only be a failure

 private:
  struct Client {
    Fd fd;
    uint64_t sent = 0;      // bytes of this connection's stream
    uint64_t received = 0;  // never more than `sent`
    bool blocked = true;    // not connected yet, or the send buffer is full: wait for EPOLLOUT
  };
  enum class Phase { opening, running, draining };
  // Less than any server's backlog (net.Server's is 511), so that no SYN is dropped and sent again a second later.
  static constexpr int kMaxOpening = 64;
  static constexpr int kPollMs = 50;

  void openNext();
  void onEvent(uint32_t index, uint32_t events);
  void connected(const Client& client, uint32_t index) const;
  void receive(uint32_t index, bool untilEmpty);
  void accountFor(uint32_t index, size_t length);
  void send(uint32_t index);
  uint64_t sendLimit(const Client& client) const;
  uint64_t& startOf(uint32_t index, uint64_t message) { return starts_[index * depth_ + message % depth_]; }

  const Options& options_;
  Trial& trial_;
  const uint64_t size_;
  const uint64_t depth_;
  Phase phase_ = Phase::opening;
  Pattern pattern_;
  Dialer dialer_;
  Poller poller_;
  std::vector<Client> clients_;
  std::vector<uint64_t> starts_;  // when each message in flight was begun: a ring of `depth` for each connection
  std::vector<uint8_t> buffer_;
  int dialed_ = 0;
  int opened_ = 0;         // have echoed their first message
  uint64_t inFlight_ = 0;  // bytes, over all connections
};

}  // namespace edgewire::bench
