// The reactor while system calls fail, shorten and repeat, memory runs out, peers misbehave and JavaScript does all it
// may do, at random. Whatever happens: each connection is closed exactly once, what was delivered is the beginning of
// what was sent, and in the end everything has come back.
//
//   EDGEWIRE_OPERATIONS=1000000 edgewire_core_test --gtest_filter='ReactorFaults.*'    for a longer run
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "faults.h"
#include "peer.h"

namespace edgewire::test {
namespace {

int operations(int usual) {
  const char* const given = std::getenv("EDGEWIRE_OPERATIONS");
  return given != nullptr ? std::max(std::atoi(given), 1) : usual;
}

// A client or a dialed server, and where it stands in its two streams; both carry pattern().
struct Stream {
  explicit Stream(std::unique_ptr<Peer> with) : peer(std::move(with)) {}

  // Checks what has come and forgets it.
  void receive(size_t bytes_max) {
    peer->receive(bytes_max);
    EXPECT_TRUE(peer->received == pattern(received, peer->received.size())) << "at byte " << received;
    received += peer->received.size();
    peer->received.clear();
  }

  std::unique_ptr<Peer> peer;
  uint64_t sent = 0;
  uint64_t received = 0;
};

class ReactorFaults : public ReactorTest {
 protected:
  // What a connection does with its input. An echo's output is its input; the others' is pattern() of their own.
  enum Style { kEcho, kSource, kStyles };
  static constexpr size_t kStreamsMax = 40;

  void run(uint64_t seed, int operations, uint64_t rarity, uint64_t budget_bytes) {
    SCOPED_TRACE(testing::Message() << "EDGEWIRE_SEED=" << test::seed() << " rarity " << rarity);
    random_.seed(seed);
    start_with_fake_clock(budget_bytes);
    host->keep_bytes = false;
    host->handle = [this](Event& event) { on_event(event); };
    addresses_ = {listen(local_address(), &listener_), listen(unix_address())};
    dial_target_ = std::make_unique<PlainListener>(local_address());
    {
      Faults faults(seed, rarity);
      host->refuse_slabs = host->refuse_rows = [&] { return faults.strike(); };
      for (int i = 0; i < operations && !HasFailure(); ++i) operate();
      faults.stop();
      settle(faults);
    }
    dial_target_.reset();
    host->refuse_slabs = host->refuse_rows = nullptr;
  }

  uint64_t below(uint64_t limit) { return random_() % limit; }

  // ---- one random step of the world ---------------------------------------------------------------------------------

  void operate() {
    switch (below(20)) {
      case 0:
      case 1: open_stream(); break;
      case 2: pass(below(50) == 0 ? 5'000 : below(20)); break;
      case 3: end_stream(); break;
      case 4:
        if (host->living_count() > 0) command(*any_life());
        break;
      case 5: reactor().flush(); break;
      case 6:
        if (below(100) == 0) toggle_listener();
        break;
      case 7:
        while (!host->leases.empty() && below(4) != 0) host->release(below(host->leases.size()));
        break;
      case 8:
      case 9:
      case 10:
      case 11: reactor().turn(below(8) != 0 ? Look::kAlways : Look::kLater); break;
      default: move_bytes(); break;
    }
  }

  void pass(uint64_t ms) {
    fake_now_ns += ms * 1'000'000;
    reactor().turn(Look::kAlways);
  }

  void open_stream() {
    if (streams_.size() >= kStreamsMax) return;
    if (below(4) != 0) {
      streams_.emplace_back(std::make_unique<Peer>(addresses_[below(addresses_.size())]));
    } else if (Life* life = host->dial(dial_target_->address)) {
      host->set_interest(*life, abi::kReadStream);
      begin(*life);
    }
    while (std::unique_ptr<Peer> accepted = dial_target_->accept()) streams_.emplace_back(std::move(accepted));
  }

  void end_stream() {
    if (streams_.empty() || below(3) != 0) return;
    const size_t which = below(streams_.size());
    Peer& peer = *streams_[which].peer;
    switch (below(4)) {
      case 0: peer.shutdown_write(); return;
      case 1: peer.reset(); break;
      default: peer.close(); break;
    }
    streams_.erase(streams_.begin() + static_cast<ptrdiff_t>(which));
  }

  void move_bytes() {
    if (streams_.empty()) return;
    Stream& stream = streams_[below(streams_.size())];
    if (below(2) == 0) {
      stream.receive(below(200'000));
    } else {
      stream.sent += stream.peer->send(pattern(stream.sent, 1 + below(below(10) == 0 ? 300'000 : 2'000)));
    }
  }

  void toggle_listener() {
    host->push(abi::kCommandListenerAccept, static_cast<uint32_t>(listener_), static_cast<int32_t>(below(2)));
  }

  // ---- what JavaScript does -----------------------------------------------------------------------------------------

  Life* any_life() {
    const std::vector<Life*> all = host->all_living();
    return all[below(all.size())];
  }

  void begin(Life& life) { life.tag = static_cast<int>(below(kStyles)); }

  void on_event(Event& event) {
    Life& life = event.life;
    switch (event.type) {
      case abi::kCompletionAccepted: begin(life); break;
      case abi::kCompletionData: on_data(event); break;
      case abi::kCompletionEnd:
        if (below(2) == 0) host->close(life, static_cast<int32_t>(below(100)));
        break;
      case abi::kCompletionTimeout:
        if (below(4) == 0) host->abort(life);
        break;
      default: break;
    }
    if (event.type != abi::kCompletionClosed && below(10) == 0) command(life);
    if (below(200) == 0) reactor().flush();
  }

  void on_data(Event& event) {
    Life& life = event.life;
    EXPECT_TRUE(event.bytes == pattern(received_[&life], event.bytes.size())) << "at byte " << received_[&life];
    received_[&life] += event.bytes.size();
    if (life.tag == kEcho) write(life, event.bytes, event.address);
    if (below(30) == 0 && host->leases.size() < 100) host->retain(event.address);
    // One read after the other, or now and then one that is not asked for again at once.
    int32_t& interest = reactor().connections().interest(life.index)[abi::kInterestRead];
    if (interest == 0 && !life.closing && below(10) != 0) host->set_interest(life, random_interest());
  }

  int32_t random_interest() {
    return below(2) == 0 ? abi::kReadStream : 1 + static_cast<int32_t>(below(below(2) == 0 ? 50 : 100'000));
  }

  void write(Life& life, std::string_view bytes, uint32_t address) {
    switch (below(3)) {
      case 0: host->write_slab(life, address, bytes.size()); break;
      case 1: {
        const uint32_t id = host->write_pinned(life, std::string(bytes));
        if (below(300) == 0) host->pins[id].resize(below(2) == 0 ? 0 : bytes.size() - 1);
        break;
      }
      default: host->write(life, bytes); break;
    }
  }

  void command(Life& life) {
    switch (below(12)) {
      case 0: host->close_write(life); break;
      case 1:
        if (below(3) == 0) host->close(life, static_cast<int32_t>(below(2'000)));
        break;
      case 2:
        if (below(3) == 0) host->abort(life);
        break;
      case 3: host->want(life, below(2) == 0 ? abi::kFlagWantDrain : abi::kFlagWantFlushed); break;
      case 4: host->set_deadline(life, abi::kRowReadDeadline, now_ms() + static_cast<double>(below(500))); break;
      case 5: host->set_deadline(life, abi::kRowWriteDeadline, now_ms() + static_cast<double>(below(500))); break;
      case 6: host->set_idle_timeout(life, static_cast<double>(below(1'000))); break;
      case 7:
        if (!life.closing) host->set_interest(life, below(2) == 0 ? 0 : abi::kReadStream);
        break;
      default:
        if (life.tag == kSource) {
          const std::string bytes = pattern(life.written, 1 + below(below(8) == 0 ? 400'000 : 1'000));
          below(3) == 0 ? void(host->write_pinned(life, bytes)) : host->write(life, bytes);
        }
    }
  }

  // ---- the end ------------------------------------------------------------------------------------------------------

  // With nothing going wrong any more, every stream that lives comes to an orderly end in bounded time.
  void settle(const Faults& faults) {
    while (!host->leases.empty()) host->release(0);
    host->push(abi::kCommandListenerAccept, static_cast<uint32_t>(listener_), 1);
    host->refuse_slabs = host->refuse_rows = nullptr;
    host->handle = [this](Event& event) {
      if (event.type == abi::kCompletionAccepted) host->close(event.life, 1'000);
    };
    for (Life* life : host->all_living()) host->close(*life, 1'000);
    turn_until([&] {
      for (Stream& stream : streams_) {
        stream.receive(SIZE_MAX);
        if (stream.peer->ended || stream.peer->error != 0) stream.peer->close();
      }
      fake_now_ns += 10'000'000;
      return host->living_count() == 0 && !faults.owes_events();
    });
    streams_.clear();
    for (const auto& life : host->lives) EXPECT_EQ(life->closed, 1);
    const auto accepted =
        std::count_if(host->lives.begin(), host->lives.end(), [](auto& l) { return l->listener >= 0; });
    EXPECT_EQ(host->metric(abi::kMetricAccepted), accepted);
  }

  std::mt19937_64 random_;
  std::vector<SocketAddress> addresses_;
  int32_t listener_ = -1;
  std::unique_ptr<PlainListener> dial_target_;
  std::vector<Stream> streams_;
  std::map<const Life*, uint64_t> received_;
};

TEST_F(ReactorFaults, NothingIsLostOrLeakedWhenNoCallFails) {
  run(seed(), operations(100'000), UINT64_MAX, kBudgetBytes);
}

TEST_F(ReactorFaults, NothingIsLostOrLeakedWhenCallsFailNowAndThen) {
  run(seed() + 1, operations(100'000), 50, kBudgetBytes);
}

TEST_F(ReactorFaults, NothingIsLostOrLeakedWhenEveryThirdCallFails) {
  run(seed() + 2, operations(100'000), 3, kBudgetBytes);
}

TEST_F(ReactorFaults, NothingIsLostOrLeakedWhenThePoolIsFarTooSmall) {
  run(seed() + 3, operations(100'000), 30, kSlabBytes);
}

}  // namespace
}  // namespace edgewire::test
