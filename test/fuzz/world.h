// The program of an input, step by step: what peers, time, the kernel and JavaScript do.
#pragma once

#include <cmath>
#include <utility>
#include <vector>

#include "js_host.h"

namespace edgewire::fuzz {

class World {
 public:
  World(const uint8_t* data, size_t bytes)
      : script_(data, bytes), kernel_(script_), host_(kernel_, (1 + script_.below(3)) * uint64_t{kSlabBytes}) {
    host_.handle = [this](Event& event) { on_event(event); };
    kernel_.faults = script_.next();
    style_ = script_.next();
    listen();
  }

  void run() {
    while (!script_.over() && !host_.abandoned) operate();
    const bool abrupt = style_ % 8 == 7;
    kernel_.faults = 0;
    kernel_.files_max = Kernel::kFilesMax;
    if (!host_.abandoned && !abrupt) settle();
    host_.reactor.close();
    EXPECT(kernel_.open_files() == foreign_files_, "descriptors are left");
  }

 private:
  enum Style : uint8_t { kEcho, kEchoCopied, kSource, kSink, kLease, kStyles };
  static constexpr size_t kListenersMax = 4;
  static constexpr int kFloodPeers = 40;
  static constexpr int kTurnsMax = 3'000;

  // ---- one step ---------------------------------------------------------------------------------------------------------

  void operate() {
    const uint8_t op = script_.next();
    trace("op", op % 32, op / 32);
    switch (op % 32) {
      case 0:
      case 1: connect_peer(); break;
      case 2:
      case 3:
        if (Socket* socket = any_socket()) kernel_.peer_sends(*socket, script_.size());
        break;
      case 4:
        if (Socket* socket = any_socket()) kernel_.peer_reads(*socket, script_.size());
        break;
      case 5:
        if (Socket* socket = any_socket()) kernel_.peer_finishes(*socket);
        break;
      case 6:
        if (Socket* socket = any_socket()) kernel_.peer_resets(*socket, op >= 128 ? ECONNRESET : ETIMEDOUT);
        break;
      case 7:
        if (Socket* socket = any_socket()) kernel_.set_room(*socket, (1 + script_.size()) * (op >= 128 ? 16 : 1));
        break;
      case 8:
        if (Socket* socket = any_socket()) kernel_.peer_sends_urgent(*socket);
        break;
      case 9:
        if (Socket* socket = any_socket()) kernel_.peer_answers(*socket);
        break;
      case 10: stale_event(); break;
      case 11: pass_time(); break;
      case 12: kernel_.faults = script_.next(); break;
      case 13: style_ = script_.next(); break;
      case 14: kernel_.files_max = op >= 128 ? Kernel::kFilesMax : kernel_.open_files() + op / 32; break;
      case 15: host_.records_per_dispatch = op >= 128 ? JsHost::kEverything : op / 32 * 7; break;
      case 16: host_.flush(); break;
      case 17: dial(); break;
      case 18: op >= 64 ? listener_command() : listen(); break;
      case 19: call(); break;
      case 20: garbage(); break;
      case 21: flood(); break;
      case 22: spoil_pin(); break;
      case 23: host_.reactor.pool().set_budget_bytes((1 + op / 32 % 4) * uint64_t{kSlabBytes}); break;
      case 24:
        while (!host_.leases.empty() && op >= 128) host_.release(0);
        if (!host_.leases.empty()) host_.release(script_.below(static_cast<uint32_t>(host_.leases.size())));
        break;
      case 25:
      case 26:
      case 27:
        if (Life* life = any_life()) command(*life);
        break;
      default: host_.turn(op < 224); break;
    }
  }

  void trace(const char* what, uint32_t a, uint32_t b) {
    static const bool on = std::getenv("EDGEWIRE_FUZZ_TRACE") != nullptr;
    if (on) std::fprintf(stderr, "%s %u %u\n", what, a, b);
  }

  Socket* any_socket() {
    const auto& all = kernel_.sockets;
    return all.empty() ? nullptr : all[all.size() - 1 - script_.below(static_cast<uint32_t>(all.size()))].get();
  }
  // One of the lives that began last.
  Life* any_life() {
    const auto& all = host_.lives;
    if (all.empty()) return nullptr;
    Life& life = *all[all.size() - 1 - script_.below(static_cast<uint32_t>(all.size()))];
    return life.closed == 0 ? &life : nullptr;
  }

  void connect_peer() {
    if (listener_fds_.empty()) return;
    kernel_.peer_connects(listener_fds_[script_.below(static_cast<uint32_t>(listener_fds_.size()))]);
  }
  void flood() {
    if (listener_fds_.empty()) return;
    const uint8_t value = script_.next();
    for (int i = 0; i < kFloodPeers; i++) {
      Socket* const socket = kernel_.peer_connects(listener_fds_[value % listener_fds_.size()]);
      if (socket == nullptr) return;
      if (value >= 128) kernel_.peer_sends(*socket, value);
      if (value >= 192) kernel_.peer_finishes(*socket);
    }
  }
  void stale_event() {
    if (kernel_.tokens.empty()) return;
    const uint64_t token = kernel_.tokens[script_.below(static_cast<uint32_t>(kernel_.tokens.size()))];
    const uint8_t bits = script_.next();
    constexpr uint32_t kBits[] = {EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP, EPOLLHUP, EPOLLERR};
    uint32_t events = 0;
    for (size_t i = 0; i < 6; i++) events |= (bits >> i & 1) != 0 ? kBits[i] : 0;
    kernel_.invent_event(bits >= 0xf0 ? token ^ uint64_t{bits} << 32 : token, events);
  }
  void pass_time() {
    const uint8_t value = script_.next();
    kernel_.now_ns += value < 128 ? value * uint64_t{1'000'000} : uint64_t{1} << (20 + (value - 128) / 4);
    if (value % 16 == 0) kernel_.epoch_ns = kernel_.epoch_ns * 31 + value;
  }

  // ---- listening, dialing, calls --------------------------------------------------------------------------------------

  static SocketAddress place(uint8_t value) {
    SocketAddress address;
    if (value % 4 == 0) {
      EXPECT(address_from_path("\0fuzz", 5, &address) == 0, "an abstract name");
    } else {
      EXPECT(address_from_ip(value % 4 == 1 ? "::1" : "127.0.0.1", value, &address) == 0, "an address");
    }
    return address;
  }

  void listen() {
    if (listener_fds_.size() >= kListenersMax) return;
    const uint8_t value = script_.next();
    ListenOptions options;
    options.low_water_bytes = JsHost::kLowWaterBytes;
    int foreign = -1;
    int index;
    if (value >= 192) {
      foreign = kernel_.foreign_listener(value % 2 == 0 ? AF_UNIX : AF_INET);
      if (foreign < 0) return;
      index = host_.reactor.listen_fd(foreign, options);
      if (index < 0) foreign_files_++;
    } else {
      index = host_.reactor.listen(place(value), options);
    }
    if (index < 0) return;
    listeners_.push_back(index);
    listener_fds_.push_back(kernel_.last_listener());
  }
  void listener_command() {
    if (listeners_.empty()) return;
    const uint32_t which = script_.below(static_cast<uint32_t>(listeners_.size()));
    const uint8_t value = script_.next();
    const auto index = static_cast<uint32_t>(listeners_[which]);
    if (value >= 64) return host_.push(abi::kCommandListenerAccept, index, value % 2);
    host_.push(abi::kCommandListenerClose, index);
    listeners_.erase(listeners_.begin() + which);
    listener_fds_.erase(listener_fds_.begin() + which);
  }
  void dial() {
    if (kernel_.sockets.size() >= Kernel::kSocketsMax) return;
    const uint8_t value = script_.next();
    const SocketAddress to = place(value);
    const SocketAddress local = place(value + 1);
    Life* const life = host_.dial(to, value >= 128 ? &local : nullptr);
    if (life == nullptr) return;
    begin(*life);
    if (value % 8 == 2) kernel_.peer_answers(*life->socket);
  }
  void call() {
    const int32_t index = script_.word();
    const int32_t what = script_.word();
    CompactAddress compact;
    SocketAddress full;
    if (what % 2 == 0) {
      host_.reactor.address(index, what / 2 % 4, &compact, what >= 64 ? &full : nullptr);
    } else {
      host_.reactor.set_option(index, what / 2 % 6, script_.word());
    }
    host_.reactor.next_turn_ms();
  }

  // ---- what JavaScript does -------------------------------------------------------------------------------------------

  void begin(Life& life) {
    life.style = script_.next() % kStyles;
    host_.set_interest(life, style_ % 4 == 3 ? script_.word() : abi::kReadStream);
  }

  void on_event(Event& event) {
    Life& life = event.life;
    trace("event", static_cast<uint32_t>(event.type), life.index);
    if (event.type == abi::kCompletionAccepted) begin(life);
    if (event.type == abi::kCompletionData) on_data(event);
    if (event.type == abi::kCompletionEnd && life.style == kEcho) host_.close(life, 1'000);
    // A handler of this kind does anything.
    if ((style_ & 16) == 0 || script_.over()) return;
    const uint8_t value = script_.next();
    switch (value % 16) {
      case 1: host_.flush(); break;
      case 2: dial(); break;
      case 3: value >= 128 ? listener_command() : listen(); break;
      case 4: garbage(); break;
      case 5: call(); break;
      case 6: host_.turn(true); break;
      case 7:
        if (value >= 240) {
          host_.reactor.close();  // the environment ends inside a handler
          host_.abandoned = true;
        }
        break;
      case 8:
      case 9:
        if (Life* other = any_life()) command(*other);
        break;
      case 10:
      case 11:
      case 12:
      case 13:
        if (life.closed == 0) command(life);
        break;
      default: break;
    }
  }

  void on_data(Event& event) {
    Life& life = event.life;
    if (life.closing) return;
    switch (life.style) {
      case kEcho: host_.write_slab(life, event.data); break;
      case kEchoCopied: host_.write_arena(life, event.data.bytes, life.received); break;
      case kLease: host_.retain(event.data); break;
      default: break;
    }
    if (life.asked == 0 && (style_ & 32) == 0) host_.set_interest(life, 1 + static_cast<int32_t>(event.data.bytes) * 2);
  }

  void command(Life& life) {
    const uint8_t value = script_.next();
    trace("command", value % 16, life.index);
    switch (value % 16) {
      case 0: host_.close_write(life); break;
      case 1: host_.close(life, script_.word()); break;
      case 2: host_.abort(life); break;
      case 3: host_.want(life, value >= 128 ? abi::kFlagWantDrain : abi::kFlagWantFlushed); break;
      case 4:
        host_.set_deadline(life, value >= 128 ? abi::kRowReadDeadline : abi::kRowWriteDeadline, deadline());
        break;
      case 5: host_.set_idle_timeout(life, value >= 128 ? script_.next() : deadline() - host_.now_ms()); break;
      case 6: host_.set_interest(life, 0); break;
      case 7: host_.set_interest(life, script_.word()); break;
      case 8: host_.set_interest(life, abi::kReadStream); break;
      case 9: host_.write_pinned(life, script_.size(), value, value >= 128); break;
      case 10: host_.write_pinned(life, script_.size() * 4, value, value >= 128); break;
      case 11: many_writes(life, value); break;
      case 12: write_lease(life); break;
      default: host_.write_arena(life, script_.size(), value); break;
    }
  }
  double deadline() {
    constexpr double kOdd[] = {NAN, -kNoDeadline, kNoDeadline, 0, -1, 1e300, 4e15, 1e18};
    const uint8_t value = script_.next();
    return value >= 240 ? kOdd[value % 8] : host_.now_ms() + value - 16;
  }
  void many_writes(Life& life, uint8_t value) {
    for (int i = 0; i < 4 * (1 + value / 16); i++) {
      i % 3 == 0 ? host_.write_pinned(life, 1 + value, value, i % 2 == 0) : host_.write_arena(life, 1 + value, value);
    }
  }
  // Received bytes that are still held, or a part of them; and perhaps they are let go in the same batch.
  void write_lease(Life& life) {
    if (host_.leases.empty()) return;
    const size_t which = script_.below(static_cast<uint32_t>(host_.leases.size()));
    Lease part = host_.leases[which];
    const uint8_t value = script_.next();
    const uint32_t skip = std::min<uint32_t>(value & 0x7f, part.bytes - 1);
    part.address += skip;
    part.position += skip;
    part.bytes -= skip;
    host_.write_slab(life, part);
    if (value >= 128) host_.release(which);
  }
  // A pinned buffer that was detached or shrunk.
  void spoil_pin() {
    if (host_.pins.empty()) return;
    auto pin = host_.pins.begin();
    std::advance(pin, script_.below(static_cast<uint32_t>(host_.pins.size())));
    pin->second.bytes = script_.next() < 128 ? 0 : pin->second.bytes / 2;
    pin->second.own.reset();
    pin->second.data = Pattern::at(0, 0);
  }

  // Commands that no honest caller gives: they must do nothing, or end the connection that they name.
  void garbage() {
    constexpr uint32_t kNoChunkOfOurs = 60'000;
    const uint8_t value = script_.next();
    Life* const life = any_life();
    const int32_t a = script_.word();
    const int32_t b = script_.word();
    if (value % 8 == 0) return host_.push(14 + value / 8, static_cast<uint32_t>(script_.word()), a, b);
    if (value % 8 == 1) return host_.push(abi::kCommandListenerClose + value / 8 % 2, 100 + value, a, b);
    if (value % 8 == 2) return host_.push(abi::kCommandRetain + value / 8 % 2, kNoChunkOfOurs + value, a, b);
    if (value % 8 <= 4 && life != nullptr) {
      if (value / 8 % 4 == 0)
        return host_.push(abi::kCommandWriteArena, life->index, abi::kArenaBytes - 1, 2 + (a & 1));
      if (value / 8 % 4 == 1) return host_.push(abi::kCommandWriteArena, life->index, a, -(b & 0xff));
      if (value / 8 % 4 == 2)
        return host_.push(abi::kCommandWriteSlab, life->index, kNoChunkOfOurs << 16 | 7, 1 + (b & 7));
      return host_.push(abi::kCommandWritePinned, life->index, static_cast<int32_t>(JsHost::kNoSuchPin) + value, b);
    }
    // Any command, for a connection that is not there.
    const int32_t index = script_.word();
    if (host_.reactor.connections().find(index) != nullptr) return;
    const int32_t type = 1 + value / 8 % abi::kCommandAcknowledge;
    if (type == abi::kCommandRetain || type == abi::kCommandRelease) return;
    const bool pinned = type == abi::kCommandWritePinned;
    host_.push(type, static_cast<uint32_t>(index), pinned ? static_cast<int32_t>(JsHost::kNoSuchPin) : a, b);
  }

  // ---- the end ------------------------------------------------------------------------------------------------------

  void settle();
  void drive();
  void expect_all_moved();
  void expect_deadlines();
  void close_everything();

  Script script_;
  Kernel kernel_;
  uint8_t style_ = 0;
  std::vector<int> listeners_;
  std::vector<int> listener_fds_;
  size_t foreign_files_ = 0;
  JsHost host_;
};

}  // namespace edgewire::fuzz
